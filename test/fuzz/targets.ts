// What is fuzzed: for each reader the inputs to begin with, the words of its format, and a repair that keeps changed
// inputs from all ending at the same check.
import { fixtureBytes, fixtures } from '../helpers/fixtures.ts';
import { arrayOpcodes, bytesOf, dtypeOpcodes, encodedText, u32, weightFile } from '../helpers/pickles.ts';

export interface Target {
  readonly name: string;
  seeds(): readonly Uint8Array[];
  readonly words: readonly Uint8Array[];
  /** Bytes at the begin that changes leave alone nine times of ten: a reader before this one refuses them otherwise. */
  readonly prefix: number;
  repair?(bytes: Uint8Array): void;
}

/** Longer inputs find little more and take longer. */
const MAX_SEED_BYTES = 12_000;

function fixturesOf(...folders: readonly string[]): Uint8Array[] {
  return fixtures()
    .filter(
      ({ file, bytes }) => folders.some((folder) => file.startsWith(`${folder}/`)) && bytes <= MAX_SEED_BYTES,
    )
    .map(({ file }) => fixtureBytes(file));
}

const array = arrayOpcodes('K\x02\x85', 'C\x0812345678');

const npy: Target = {
  name: 'npy',
  seeds: () => fixturesOf('npy', 'bad-npy'),
  prefix: 8,
  words: [
    ...[
      "'descr'",
      '"shape"',
      "'fortran_order'",
      'True',
      'False',
      '(',
      ')',
      '()',
      '{',
      '}',
      ',',
      ':',
      ' ',
      '\n',
    ],
    ...[
      "'<f4'",
      "'>f8'",
      "'|O'",
      "'|b1'",
      "'<V2'",
      "'<c16'",
      "[('a', '<f4')]",
      'L',
      '-1',
      '0',
      "u'",
      '\\x41',
    ],
  ].map((word) => bytesOf(word)),
  /** The length of the text, as its line feed says. */
  repair(bytes) {
    const end = bytes.indexOf(0x0a, 10);
    if (end < 0 || bytes[6] !== 1) return;
    bytes[8] = (end - 9) & 255;
    bytes[9] = (end - 9) >> 8;
  },
};

const pickle: Target = {
  name: 'pickle',
  seeds: () => [
    ...fixturesOf('weights', 'bad-pickle', 'bad-weights'),
    weightFile(`](${array}e`),
    weightFile(`](${array.replace('C\x0812345678', encodedText('1234567\xc3\xbf'))}e`, 'K\x05', 2),
  ],
  prefix: 128,
  words: [
    ...'().012aberst]}NRQ\x81\x85\x86\x87\x88\x89\x90\x93\x94',
    ...[
      'K\x00',
      'K\x01',
      'J\xff\xff\xff\xff',
      'M\x01\x02',
      '\x8a\x01\x80',
      `G${'\0'.repeat(8)}`,
      'q\x00',
      'h\x00',
    ],
    ...[
      'h\x01',
      `r${u32(70_000)}`,
      `j${u32(70_000)}`,
      'C\x01b',
      'C\x00',
      `B${u32(4)}`,
      `\x8e${u32(8)}${u32(0)}`,
    ],
    ...['X\x02\0\0\0f4', 'X\x01\0\0\0<', '\x8c\x02i8', 'U\x02f4', `\x95${u32(16)}${u32(0)}`, '\x80\x04'],
    ...['cnumpy\nndarray\n', 'cnumpy\ndtype\n', 'cnumpy.core.multiarray\n_reconstruct\n', 'cos\nsystem\n'],
    ...['cnumpy.core.multiarray\nscalar\n', 'cnumpy._core.numeric\n_frombuffer\n', 'c_codecs\nencode\n'],
    ...[
      'c__builtin__\nbytes\n',
      'cml_dtypes\nbfloat16\n',
      dtypeOpcodes('f4'),
      dtypeOpcodes('O8', '|'),
      array,
    ],
    ...[`](${array}e`, `](X\x01\0\0\0a${array}e`, ']q\x05(h\x05h\x05h\x05e', ')\x85\x85\x85'],
  ].map((word) => bytesOf(word)),
};

const safetensors: Target = {
  name: 'safetensors',
  seeds: () => fixturesOf('safetensors', 'bad-safetensors'),
  prefix: 9,
  words: [
    ...[
      '"dtype"',
      '"shape"',
      '"data_offsets"',
      '"__metadata__"',
      '"weighting"',
      '"__proto__"',
      '""',
      '[',
      ']',
    ],
    ...[
      '{',
      '}',
      ':',
      ',',
      ' ',
      '"',
      '\\',
      '\\u0041',
      '\\ud800',
      '[0,0]',
      '[]',
      'null',
      'true',
      '-0',
      '1e3',
      '0.0',
    ],
    ...[
      '"F32"',
      '"BF16"',
      '"I8"',
      '"F4"',
      '"BOOL"',
      '"C64"',
      '"1329"',
      '"a":{"dtype":"U8","shape":[],',
      '\xc3\xa4',
    ],
  ].map((word) => bytesOf(word)),
  /** The length of the header, as its last brace says. */
  repair(bytes) {
    const end = bytes.lastIndexOf(0x7d) - 7;
    if (end > 0) new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(0, BigInt(end), true);
  },
};

const ZIP_WORDS = [
  ...[
    'PK\x03\x04',
    'PK\x01\x02',
    'PK\x05\x06',
    'PK\x06\x06',
    'PK\x06\x07',
    'PK\x07\x08',
    '\x01\0\x10\0',
    '\x08\0',
  ],
  ...[
    '.npy',
    'weighting.npy',
    'layer_0.npy',
    '../',
    '/',
    '\\',
    'C:',
    '\xff\xff\xff\xff',
    '\0\0\0\0',
    '\x03\0',
  ],
  new Uint8Array(npyHeader()),
].map((word) => bytesOf(word));

/** What np.save writes of three float32 elements. */
function npyHeader(): Uint8Array {
  const text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }".padEnd(117);
  return bytesOf('\x93NUMPY\x01\0\x76\0', text, '\n', '\0'.repeat(12));
}

const zip: Target = {
  name: 'zip',
  seeds: () => fixturesOf('npz', 'bad-npz'),
  prefix: 4,
  words: ZIP_WORDS,
};

const torch: Target = {
  name: 'torch',
  seeds: () => fixturesOf('torch', 'bad-torch'),
  prefix: 4,
  words: [
    ...ZIP_WORDS,
    ...[
      'ctorch._utils\n_rebuild_tensor_v2\n',
      'ctorch\nFloatStorage\n',
      'ccollections\nOrderedDict\n',
      'Q',
      '}',
      's',
      'u',
    ].map((word) => bytesOf(word)),
    ...[
      'X\x07\0\0\0storage',
      'X\x01\0\0\x000',
      'X\x03\0\0\0cpu',
      'K\0',
      'K\x01\x85',
      '(',
      't',
      ')R',
      'J\xff\xff\xff\x7f',
    ].map((word) => bytesOf(word)),
  ],
};

export const TARGETS: readonly Target[] = [npy, pickle, safetensors, zip, torch];
