import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isCambiumError } from '../../src/errors.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import type { TensorSpec, WeightsSpec } from '../../src/formats/encoding.ts';
import { openWeights } from '../../src/formats/open.ts';
import { readTensors } from '../../src/formats/read.ts';
import { readSafetensorsLayout } from '../../src/formats/safetensors.ts';
import { writeWeights } from '../../src/formats/write.ts';
import { memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { elementCount } from '../../src/tensor/layout.ts';
import type { ModelUpdate } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { fixtureBytes, fixtures } from '../helpers/fixtures.ts';
import { bytesOf, counted, sparseSource, u64 } from '../helpers/pickles.ts';
import { Random, testSeed } from '../helpers/random.ts';

const test = suite('formats/safetensors');
const seed = testSeed();

/** A file with a header as it stands, and zeros behind it. */
function fileOf(header: string | Uint8Array, dataLength = 0): Uint8Array {
  const text = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  return bytesOf(u64(text.byteLength), text, new Uint8Array(dataLength));
}

const entry = (begin: number, end: number, shape = `[${end - begin}]`, dtype = 'U8') =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`;

const read = (bytes: Uint8Array) => readSafetensorsLayout(memorySource(bytes, 'x'));

async function written(update: ModelUpdate): Promise<Uint8Array> {
  let bytes = new Uint8Array();
  await writeWeights(
    (byteLength) => {
      const sink = memorySink(byteLength);
      bytes = sink.bytes as Uint8Array<ArrayBuffer>; // memory of its own
      return sink;
    },
    update,
    { format: 'safetensors' },
  );
  return bytes;
}

test('headers that are wrong, and where', async () => {
  const cases: [what: string, header: string | Uint8Array, dataLength: number, code: string, at: number][] = [
    ['empty', '', 0, 'st-json', 0],
    ['blanks', '   ', 0, 'st-json', 3],
    ['a byte order mark', '\ufeff{}', 0, 'st-json', 0],
    ['two objects', '{}{}', 0, 'st-json', 2],
    ['a NUL behind', '{}\0', 0, 'st-json', 2],
    ['no colon', '{"a"1}', 0, 'st-json', 4],
    ['a comma too many', `{"a":${entry(0, 0)},}`, 0, 'st-json', 53],
    ['no comma', `{"a":${entry(0, 0)}"b"`, 0, 'st-json', 52],
    ['a key without quotes', '{a:1}', 0, 'st-json', 1],
    ['an entry that is null', '{"a":null}', 0, 'st-json', 5],
    ['an entry that is an array', '{"a":["U8",[0],[0,0]]}', 0, 'st-json', 5],
    ['no data_offsets', '{"a":{"dtype":"U8","shape":[0]}}', 0, 'st-json', 1],
    ['no dtype', '{"a":{"shape":[0],"data_offsets":[0,0]}}', 0, 'st-json', 1],
    ['another member', `{"a":{"x":1}}`, 0, 'st-json', 6],
    ['a dtype that is a number', '{"a":{"dtype":8}}', 0, 'st-json', 14],
    ['a float of eight bits', `{"a":${entry(0, 1, '[1]', 'F8_E4M3')}}`, 1, 'st-dtype', 14],
    ['a float of four bits', `{"a":${entry(0, 1, '[2]', 'F4')}}`, 1, 'st-dtype', 14],
    ['a dtype in small letters', `{"a":${entry(0, 4, '[1]', 'f32')}}`, 4, 'st-dtype', 14],
    ['one offset', '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}}', 0, 'st-json', 46],
    ['three offsets', '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}}', 0, 'st-json', 46],
    ['a negative offset', '{"a":{"dtype":"U8","shape":[0],"data_offsets":[-0,0]}}', 0, 'st-json', 47],
    ['a dimension in scientific notation', `{"a":${entry(0, 2, '[2e0]')}}`, 2, 'st-json', 28],
    ['a dimension with a point', `{"a":${entry(0, 2, '[2.0]')}}`, 2, 'st-json', 28],
    ['a dimension with a leading zero', `{"a":${entry(0, 2, '[02]')}}`, 2, 'st-json', 28],
    ['a dimension that is a text', `{"a":${entry(0, 2, '["2"]')}}`, 2, 'st-json', 28],
    ['a dimension that is none', `{"a":${entry(0, 2, '[,2]')}}`, 2, 'st-json', 28],
    ['a nested shape', `{"a":${entry(0, 2, '[[2]]')}}`, 2, 'st-json', 28],
    ['a dimension of 2^53', `{"a":${entry(0, 0, '[0,9007199254740992]')}}`, 0, 'st-overflow', 27],
    ['2^53 elements', `{"a":${entry(0, 0, '[4503599627370496,2]')}}`, 0, 'st-overflow', 27],
    ['2^53 bytes', `{"a":${entry(0, 0, '[1125899906842624]', 'F64')}}`, 0, 'st-overflow', 28],
    ['an offset of 2^64', `{"a":${entry(0, 18446744073709552000)}}`, 0, 'st-overflow', 27],
    [
      'offsets that JSON.parse rounds',
      '{"a":{"dtype":"U8","shape":[1],"data_offsets":[9007199254740992,9007199254740993]}}',
      1,
      'st-offsets',
      46,
    ],
    ['65 dimensions', `{"a":${entry(0, 1, `[${Array(65).fill(1)}]`)}}`, 1, 'st-limit', 27],
    ['a long name', `{"${'n'.repeat(1025)}":${entry(0, 1)}}`, 1, 'st-limit', 1],
    ['a long name in UTF-8', `{"${'ü'.repeat(513)}":${entry(0, 1)}}`, 1, 'st-limit', 1],
    ['a first byte that is nobody’s', `{"a":${entry(1, 2)}}`, 2, 'st-offsets', 46],
    ['the same bytes twice', `{"a":${entry(0, 2)},"b":${entry(0, 2)}}`, 2, 'st-offsets', 98],
    ['bytes behind', `{"a":${entry(0, 2)}}`, 3, 'st-offsets', 55],
    ['bytes of nobody', '{}', 1, 'st-offsets', 2],
    ['two equal names', `{"a":${entry(0, 1)},"a":${entry(1, 2)}}`, 2, 'st-duplicate', 53],
    ['two equal names, one escaped', `{"a":${entry(0, 1)},"\\u0061":${entry(1, 2)}}`, 2, 'st-duplicate', 53],
    ['two shapes', '{"a":{"shape":[1],"shape":[1]}}', 1, 'st-duplicate', 18],
    ['two metadata', '{"__metadata__":{},"__metadata__":{}}', 0, 'st-duplicate', 19],
    ['metadata of one name', '{"__metadata__":{"a":"1","a":"1"}}', 0, 'st-duplicate', 25],
    ['metadata that is null', '{"__metadata__":null}', 0, 'st-json', 16],
    ['metadata in metadata', '{"__metadata__":{"a":{}}}', 0, 'st-json', 21],
    ['a control character', '{"a\n":1}', 0, 'st-json', 3],
    ['an escape of another language', '{"\\x41":1}', 0, 'st-json', 2],
    ['an escape that is too short', '{"\\u004":1}', 0, 'st-json', 2],
    ['a high surrogate alone', '{"\\ud83d":1}', 0, 'st-json', 8],
    ['a high surrogate before a letter', '{"\\ud83d\\u0041":1}', 0, 'st-json', 2],
    ['a low surrogate alone', '{"\\ude00":1}', 0, 'st-json', 2],
    ['a surrogate in UTF-8', bytesOf('{"\xed\xa0\x80":1}'), 0, 'st-json', 2],
    ['an overlong slash', bytesOf('{"\xc0\xaf":1}'), 0, 'st-json', 2],
    ['a character that an escape would complete', bytesOf('{"\xc3\\u0080":1}'), 0, 'st-json', 2],
    ['a text without end', '{"a', 0, 'st-json', 3],
    ['a backslash at the end', '{"a\\', 0, 'st-json', 3],
    ['a weighting that is a word', '{"__metadata__":{"weighting":"many"}}', 0, 'weights-form', 29],
    ['no digits', '{"__metadata__":{"weighting":""}}', 0, 'weights-form', 29],
    ['a weighting with a blank', '{"__metadata__":{"weighting":" 3"}}', 0, 'weights-form', 29],
    ['a weighting in hexadecimal', '{"__metadata__":{"weighting":"0x10"}}', 0, 'weights-form', 29],
    ['an infinite weighting', '{"__metadata__":{"weighting":"1e400"}}', 0, 'weights-form', 29],
    ['a weighting of 2^53', '{"__metadata__":{"weighting":"9007199254740992"}}', 0, 'weights-form', 29],
    [
      'a weighting of many digits',
      `{"__metadata__":{"weighting":"0.${'1'.repeat(400)}"}}`,
      0,
      'weights-form',
      29,
    ],
  ];
  for (const [what, header, dataLength, code, at] of cases) {
    const error = await failsWith(code, () => read(fileOf(header, dataLength))).catch((cause) => {
      throw new Error(`${what}: ${String(cause)}`, { cause });
    });
    const { offset, file } = error as { offset?: number; file?: string };
    assert.is(offset, 8 + at, `${what}: ${error.message}`);
    assert.is(file, 'x');
    assert.ok(error.message.length < 400, what);
  }
});

test('an error names the tensor', async () => {
  const error = await failsWith('st-offsets', () => read(fileOf(`{"fc.bias":${entry(0, 3, '[2]')}}`, 3)));
  assert.is((error as { tensor?: string }).tensor, 'fc.bias');
  assert.match(error.message, /^x: tensor "fc\.bias": .*3 bytes.*mean 2/);
});

test('headers that are unusual', async () => {
  const cases: [what: string, header: string, dataLength: number, names: string[]][] = [
    ['blanks everywhere', ` \t\r\n{ "a" : ${entry(0, 1).replaceAll(/[[\]{},:]/g, ' $& ')} } `, 1, ['a']],
    ['the order of the members', '{"a":{"data_offsets":[0,1],"shape":[1],"dtype":"U8"}}', 1, ['a']],
    [
      'escapes',
      `{"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\u20AC\\ud83d\\ude00":${entry(0, 0)}}`,
      0,
      ['"\\/\b\f\n\r\té€😀'],
    ],
    ['an escaped member', `{"a":{"d\\u0074ype":"\\u00558","shape":[1],"data_offsets":[0,1]}}`, 1, ['a']],
    ['an empty name', `{"":${entry(0, 1)}}`, 1, ['']],
    ['UTF-8', `{"grün😀":${entry(0, 1)}}`, 1, ['grün😀']],
    ['a byte order mark in a name', `{"\ufeffa":${entry(0, 1)}}`, 1, ['\ufeffa']],
    [
      '__proto__',
      `{"__proto__":${entry(0, 1)},"constructor":${entry(1, 2)}}`,
      2,
      ['__proto__', 'constructor'],
    ],
    ['the order of the elements', `{"b":${entry(2, 3)},"c":${entry(0, 2)}}`, 3, ['c', 'b']],
    ['no elements', `{"b":${entry(1, 1)},"a":${entry(1, 1)},"c":${entry(0, 1)}}`, 1, ['c', 'b', 'a']],
    ['zero times very much', `{"a":${entry(0, 0, '[0,9007199254740991,9007199254740991]')}}`, 0, ['a']],
    ['a long name', `{"${'n'.repeat(1024)}":${entry(0, 1)}}`, 1, ['n'.repeat(1024)]],
    ['64 dimensions', `{"a":${entry(0, 1, `[${Array(64).fill(1)}]`)}}`, 1, ['a']],
    ['metadata of others', '{"__metadata__":{"format":"pt","a":"\\u0000"}}', 0, []],
  ];
  for (const [what, header, dataLength, names] of cases) {
    const { tensors, weighting } = await read(fileOf(header, dataLength));
    assert.equal(
      tensors.map(({ name }) => name),
      names,
      what,
    );
    assert.is(weighting, null);
  }
});

test('the weighting is a decimal number in the metadata', async () => {
  const cases: [text: string, value: number, type: 'int' | 'float'][] = [
    ['1329', 1329, 'int'],
    ['0', 0, 'int'],
    ['-3', -3, 'int'],
    ['9007199254740991', 2 ** 53 - 1, 'int'],
    ['0.1', 0.1, 'float'],
    ['1329.0', 1329, 'float'],
    ['5e-324', 5e-324, 'float'],
    ['1E+21', 1e21, 'float'],
    ['.5', 0.5, 'float'],
  ];
  for (const [text, value, type] of cases) {
    const { weighting, weightingType } = await read(fileOf(`{"__metadata__":{"weighting":"${text}"}}`));
    assert.equal([weighting, weightingType], [value, type]);
  }
});

test('every truncation of a good file is a typed error', async () => {
  for (const { file, outcome } of fixtures()) {
    if (outcome !== 'ok' || !file.startsWith('safetensors/')) continue;
    const bytes = fixtureBytes(file);
    for (let length = 0; length < bytes.byteLength; length++) {
      await failsWith('st-header-size|st-offsets', () => read(bytes.subarray(0, length)));
      await failsWith('st-header-size|st-offsets', () =>
        openWeights(memorySource(bytes.subarray(0, length), 'cut.safetensors')),
      ).catch((error) => {
        // Without a byte, the file is an empty .npy as well as an empty anything.
        if (length > 0) throw error;
      });
    }
  }
});

test('every change of one byte of a header ends in a typed error or a valid layout', async () => {
  let accepted = 0;
  let refused = 0;
  for (const { file, outcome } of fixtures()) {
    if (outcome !== 'ok' || !file.startsWith('safetensors/')) continue;
    const good = fixtureBytes(file);
    const headerEnd = 8 + new DataView(good.buffer).getUint32(0, true);
    for (let at = 0; at < headerEnd; at++) {
      for (let value = 0; value < 256; value++) {
        const bytes = good.slice();
        bytes[at] = value;
        try {
          const { tensors } = await read(bytes);
          let end = tensors[0]?.byteOffset ?? bytes.byteLength;
          for (const { byteOffset, byteLength, shape, dtype } of tensors) {
            assert.is(byteOffset, end);
            assert.is(byteLength, elementCount(shape) * itemSize(dtype));
            end += byteLength;
          }
          assert.is(end, bytes.byteLength);
          accepted++;
        } catch (error) {
          if (!isCambiumError(error)) throw error;
          assert.match(error.code, /^st-|^weights-form$/);
          refused++;
        }
      }
    }
  }
  console.log(`${accepted} accepted, ${refused} refused`);
  assert.ok(accepted > 1000 && refused > 100_000);
});

test('the writer sorts as the reference does, widest dtype first, and pads to 8', async () => {
  const tensors: TensorSpec[] = [
    { name: 'b', dtype: 'float32', shape: [2] },
    { name: 'a', dtype: 'float32', shape: [] },
    { name: 'mask', dtype: 'bool', shape: [3] },
    { name: 'n', dtype: 'int64', shape: [1] },
    { name: '\u{1f600}', dtype: 'float16', shape: [0] },
    { name: '\uffee', dtype: 'float16', shape: [1] },
  ];
  const { literals, payloads, byteLength } = await encodeWeights({
    format: 'safetensors',
    weighting: 0.5,
    tensors,
  });
  const text = Buffer.from(literals[0]!.bytes.subarray(8)).toString();
  assert.is(
    text.trimEnd(),
    '{"__metadata__":{"weighting":"0.5"},' +
      '"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},' +
      '"a":{"dtype":"F32","shape":[],"data_offsets":[8,12]},' +
      '"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},' +
      '"\uffee":{"dtype":"F16","shape":[1],"data_offsets":[20,22]},' +
      '"\u{1f600}":{"dtype":"F16","shape":[0],"data_offsets":[22,22]},' +
      '"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[22,25]}}',
  );
  const begin = literals[0]!.bytes.byteLength;
  assert.is(begin % 8, 0);
  assert.ok(text.length - text.trimEnd().length < 8);
  assert.equal(
    payloads.map(({ offset }) => offset - begin),
    [12, 8, 22, 0, 22, 20],
  );
  assert.is(byteLength, begin + 25);
});

test('a file of the reference writer comes out byte for byte', async () => {
  // safetensors 0.8.0 for Python: save() of one zero of each dtype of NumPy, with metadata.
  const names = ['m', 'l', 'k', 'j', 'i', 'q"\n\x7f\u2028', 'h', 'g', 'f', 'e', 'd', 'c', 'b', 'a'];
  const dtypes = 'U64 I64 F64 C64 F32 F32 U32 I32 F16 U16 I16 I8 U8 BOOL'.split(' ');
  const ends = [8, 16, 24, 32, 36, 40, 44, 48, 50, 52, 54, 55, 56, 57];
  const members = names.map((name, i) => {
    const escaped = name.replace('"', '\\"').replace('\n', '\\n');
    return `"${escaped}":{"dtype":"${dtypes[i]}","shape":[1],"data_offsets":[${ends[i - 1] ?? 0},${ends[i]}]}`;
  });
  const header = Buffer.alloc(816, ' ');
  header.write(`{"__metadata__":{"weighting":"0.5"},${members.join(',')}}`);
  const reference = fileOf(header, 57);
  sameBytes(await written(await readTensors(memorySource(reference))), reference);
});

test('random updates come back as they were', async () => {
  const random = new Random(seed);
  const dtypes = (Object.keys(DTYPES) as DType[]).filter(
    (dtype) => !['complex128', 'void16'].includes(dtype),
  );
  for (let round = 0; round < 200; round++) {
    const tensors = Array.from({ length: random.integer(0, 8) }, (_, i) => {
      const dtype = random.pick(dtypes);
      const shape = Array.from({ length: random.integer(0, 3) }, () => random.integer(0, 4));
      const data = new Uint8Array(elementCount(shape) * itemSize(dtype)).map(() => random.bits());
      const name = String.fromCodePoint(random.pick([0x22, 0x5c, 0x0a, 0x41, 0xe9, 0xfeff, 0x1f600]));
      return { name: `${name}${i}`, dtype, shape, data };
    });
    const weighting = random.pick([null, 1329, 0.1, 2 ** 53 - 1, 2 ** -64, 1e21, random.uniform()]);
    const back = await readTensors(memorySource(await written({ weighting, tensors })));
    assert.is(back.weighting, weighting);
    assert.is(back.layout.format, 'safetensors');
    const found = new Map(back.tensors.map((tensor) => [tensor.name, tensor]));
    assert.is(found.size, tensors.length);
    for (const { name, dtype, shape, data } of tensors) {
      const tensor = found.get(name)!;
      assert.equal([tensor.dtype, tensor.shape], [dtype, shape]);
      sameBytes(tensor.data, data);
    }
  }
});

test('tensors without a name are called by their positions, and get their order back', async () => {
  const dtypes: DType[] = ['uint8', 'float64', 'float16'];
  const encoding = await encodeWeights({
    format: 'safetensors',
    weighting: null,
    tensors: Array.from({ length: 12 }, (_, i) => ({ name: null, dtype: dtypes[i % 3]!, shape: [i] })),
  });
  assert.match(Buffer.from(encoding.literals[0]!.bytes).toString(), /"layer_11":\{/);
  const { layout } = await openWeights(sparseSource(encoding));
  assert.equal(
    layout.tensors.map(({ name, shape: [length], byteOffset }) => [name, length, byteOffset]),
    encoding.payloads.map(({ offset }, i) => [null, i, offset]),
  );
});

test('names that look like positions, but are not all of them, stay names', async () => {
  for (const names of [
    ['layer_1'],
    ['layer_1', 'layer_2'],
    ['layer_00'],
    ['layer_0', 'bias'],
    ['layer_-0'],
  ]) {
    const entries = names.map((name, i) => `"${name}":${entry(i, i + 1)}`);
    const { tensors } = await read(fileOf(`{${entries.join(',')}}`, names.length));
    assert.equal(
      tensors.map(({ name }) => name),
      names,
    );
  }
});

test('what the format cannot hold is a RangeError', async () => {
  const tensor = (name: string | null, dtype: DType = 'uint8', shape = [1]) => ({ name, dtype, shape });
  const cases: [Partial<WeightsSpec>, RegExp][] = [
    [{ tensors: [tensor('a', 'complex128')] }, /complex128/],
    [{ tensors: [tensor('a', 'void16')] }, /void16/],
    [{ tensors: [tensor('a'), tensor('a')] }, /two tensors are called "a"/],
    [{ tensors: [tensor('layer_1'), tensor(null)] }, /layer_1/],
    [{ tensors: [tensor('__metadata__')] }, /__metadata__/],
    [{ tensors: [tensor('\ud83d')] }, /surrogate/],
    [{ tensors: [tensor('n'.repeat(1025))] }, /name/],
    [{ tensors: [tensor('a', 'uint8', [2 ** 52, 2 ** 52, 0])] }, /too large/],
    [{ weighting: Number.NaN }, /NaN/],
    [{ weighting: Infinity }, /Infinity/],
  ];
  for (const [wrong, message] of cases) {
    const spec = { format: 'safetensors', weighting: null, tensors: [], ...wrong } as const;
    const error = await encodeWeights(spec).then(
      () => undefined,
      (cause) => cause,
    );
    assert.instance(error, RangeError);
    assert.match(error.message, message);
  }
});

test('the layout of a model of hundreds of gigabytes takes its header in reads, and nothing else', async () => {
  const tensors = Array.from({ length: 200 }, (_, i) => ({
    name: `layer.${i}.weight`,
    dtype: 'float32' as const,
    shape: [1 << 14, 1 << 15],
  }));
  const encoding = await encodeWeights({ format: 'safetensors', weighting: 1329, tensors });
  const source = counted(sparseSource(encoding));
  const { layout } = await openWeights(source);
  assert.is(layout.tensors.length, 200);
  assert.ok(layout.byteLength > 2 ** 38, `${layout.byteLength}`);
  assert.ok(source.count.bytes < 65_536 && source.count.calls <= 3, `${source.count.bytes} bytes`);
});

test('a hundred thousand tensors, and a header of brackets', async () => {
  const tensors = Array.from({ length: 100_000 }, (_, i) => ({
    name: `layer.${i}`,
    dtype: 'uint8' as const,
    shape: [1],
  }));
  const encoding = await encodeWeights({ format: 'safetensors', weighting: 1, tensors });
  const { layout } = await openWeights(sparseSource(encoding));
  assert.is(layout.tensors.length, 100_000);
  await failsWith('st-json', () => read(fileOf('['.repeat(1_000_000))));
  await failsWith('st-json', () => read(fileOf(`{"a":${'{"shape":'.repeat(100_000)}`)));
  await failsWith('st-limit', () => read(fileOf(`{"a":${entry(0, 1, `[${'1,'.repeat(100_000)}1]`)}}`, 1)));
  const shared = Array.from({ length: 100_000 }, (_, i) => `"${i}":${entry(0, 1)}`);
  await failsWith('st-offsets', () => read(fileOf(`{${shared.join(',')}}`, 1)));
});

test('a file that became shorter while it was read is an error', async () => {
  const bytes = fixtureBytes('safetensors/basic.safetensors');
  for (const length of [4, 60]) {
    const source = { ...memorySource(bytes.subarray(0, length)), byteLength: bytes.byteLength };
    await failsWith('st-header-size', () => readSafetensorsLayout(source));
  }
});

test.run();
