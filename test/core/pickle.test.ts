// The walker itself: every split of its input, every cut, every change of a byte, and inputs that want to cost more than
// their size. One instance serves all walks of this suite: a walk leaves nothing behind.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  NPY_DATA_TRAILING,
  PICKLE_LIMIT,
  PICKLE_STRUCTURE,
  REASON_LINE,
  REASON_MARKS,
  REASON_MEMO,
  REASON_NAME,
  REASON_NESTING,
  REASON_OPCODES,
  REASON_OPERANDS,
  REASON_STACK,
  REASON_TENSORS,
  WEIGHTS_FORM,
} from '../../assembly/abi.ts';
import { type Core, openCore } from '../../src/core/core.ts';
import { readNpyHeader } from '../../src/core/npy.ts';
import { PICKLE_WINDOW_BYTES, PickleWalk } from '../../src/core/pickle.ts';
import { fixtureBytes, fixtures } from '../helpers/fixtures.ts';
import { arrayOpcodes, dtypeOpcodes, u32, weightFile } from '../helpers/pickles.ts';
import { Random, testSeed } from '../helpers/random.ts';

const test = suite('core/pickle');
const core = await openCore();

/** How many bytes of the file a window from `offset` on gets, when the walker wants `need`. */
type Feed = (offset: number, need: number) => number;

const whole: Feed = () => PICKLE_WINDOW_BYTES;

/** What becomes of a pickle, as text that can be compared, and how many calls it took. */
function outcomeOf(bytes: Uint8Array, begin: number, feed: Feed = whole, host: Core = core) {
  return host.scope(() => {
    const walk = new PickleWalk(host, begin, bytes.byteLength);
    let need = { offset: begin, byteLength: 1 };
    for (let calls = 1; ; calls++) {
      const wanted = Math.min(feed(need.offset, need.byteLength), PICKLE_WINDOW_BYTES);
      const part = bytes.subarray(need.offset, need.offset + wanted);
      walk.window(part.byteLength).set(part);
      const step = walk.walk(part.byteLength, need.offset);
      if (calls > 10 * bytes.byteLength + 10) assert.unreachable('the walk does not end');
      if (step.kind === 'need') {
        assert.ok(step.offset + step.byteLength <= bytes.byteLength, 'wants what the file does not have');
        assert.ok(step.byteLength <= 2_048, `wants ${step.byteLength} bytes at once`);
        need = step;
        continue;
      }
      if (step.kind === 'memory') return { text: 'memory', calls, status: -1, reason: -1 };
      if (step.kind === 'refused') return { ...refused(step), calls };
      const taken = walk.takeTensors();
      if (taken.kind === 'refused') return { ...refused(taken), calls };
      return { text: JSON.stringify([step, taken.records]), calls, status: 0, reason: 0 };
    }
  });
}

function refused({ status, offset, reason }: { status: number; offset: number; reason: number }) {
  return { text: `status ${status}, reason ${reason}, at ${offset}`, status, reason };
}

/** Where the pickle of a weight file begins; null for another file. */
function beginOf(bytes: Uint8Array): number | null {
  const header = readNpyHeader(core, bytes, bytes.byteLength);
  return header.kind === 'npy' && header.record.dtype === 0 ? header.record.byteOffset : null;
}

const pickles = fixtures().flatMap(({ file, outcome }) => {
  const bytes = fixtureBytes(file);
  const begin = beginOf(bytes);
  return begin === null ? [] : [{ file, outcome, bytes, begin }];
});
const small = pickles.filter(({ outcome, bytes }) => outcome === 'ok' && bytes.byteLength < 1_000);

test('fed byte by byte, every pickle gives what it gives at once', () => {
  let compared = 0;
  for (const { file, bytes, begin } of pickles) {
    if (bytes.byteLength > 20_000) continue;
    const { text } = outcomeOf(bytes, begin);
    assert.is(outcomeOf(bytes, begin, (_, need) => need).text, text, `${file}, exactly what is wanted`);
    compared++;
  }
  assert.ok(compared > 90, `${compared} pickles`);
});

test('cut into two windows anywhere, every small pickle gives the same', () => {
  for (const { file, bytes, begin } of small) {
    const { text } = outcomeOf(bytes, begin);
    for (let split = begin + 1; split < bytes.byteLength; split++) {
      const feed: Feed = (offset, need) => (offset + need <= split ? split - offset : PICKLE_WINDOW_BYTES);
      assert.is(outcomeOf(bytes, begin, feed).text, text, `${file}, split at ${split}`);
    }
  }
});

test('every truncation of a small good pickle is refused', () => {
  for (const { file, bytes, begin } of small) {
    for (let length = begin; length < bytes.byteLength; length++) {
      const { status, text } = outcomeOf(bytes.subarray(0, length), begin);
      assert.ok(status > 0, `${file}, ${length} bytes: ${text}`);
    }
  }
});

test('every change of one byte outside the payloads ends in a refusal or in a valid result', () => {
  let walks = 0;
  let accepted = 0;
  for (const { bytes, begin } of small) {
    for (let at = begin; at < bytes.byteLength; at++) {
      const byte = bytes[at]!;
      // All values in the files of one array, every seventh (from another start each time) in the others.
      const stride = bytes.byteLength < 400 ? 1 : 7;
      for (let value = at % stride; value < 256; value += stride) {
        if (value === byte) continue;
        bytes[at] = value;
        const { status, text } = outcomeOf(bytes, begin);
        assert.ok(status === 0 || status > 15, text);
        walks++;
        if (status === 0) accepted++;
      }
      bytes[at] = byte;
    }
  }
  assert.ok(walks > 100_000 && accepted > 0 && accepted < walks, `${accepted} of ${walks} accepted`);
});

const array = arrayOpcodes('K\x02\x85', 'C\x0812345678');
const isolated = (parameters: string, weighting?: string) => {
  const bytes = weightFile(parameters, weighting);
  return { bytes, begin: 128 };
};

test('a payload is skipped without being asked for', () => {
  const length = 3_000_000;
  const opcodes = arrayOpcodes(`J${u32(length / 4)}\x85`, `B${u32(length)}`);
  const literals = weightFile(`](${opcodes}e`);
  const at = Buffer.from(literals).indexOf(Buffer.from(`B${u32(length)}`, 'latin1')) + 5;
  const bytes = new Uint8Array(literals.byteLength + length);
  bytes.set(literals.subarray(0, at));
  bytes.set(literals.subarray(at), at + length);
  const touched: number[] = [];
  const { status, text } = outcomeOf(bytes, 128, (offset) => {
    touched.push(offset);
    return 256;
  });
  assert.is(status, 0, text);
  assert.ok(
    touched.every((offset) => offset < at + 64 || offset >= at + length),
    'read within the payload',
  );
});

test('limits hold just over and not just under', () => {
  const nested = (n: number) => `${']'.repeat(n)}${'a'.repeat(n - 1)}`;
  const marks = (n: number) => `${'('.repeat(n)}${'t'.repeat(n)}`;
  const arrays = (n: number) =>
    `](](${array}q\x01${'h\x01'.repeat(32_767)}e](${'h\x01'.repeat(n - 32_768)}ee`;
  const named = (n: number) => `](](X${u32(n)}${'x'.repeat(n)}${array}ee`;
  // Two marks are open around the parameters, and four values below them on the stack.
  const cases: [string, string, number][] = [
    ['16 lists in one another', nested(16), 0],
    ['17 lists in one another', nested(17), REASON_NESTING],
    ['64 marks', marks(62), REASON_NESTING],
    ['65 marks', marks(63), REASON_MARKS],
    ['a memo of 2^20', `]r${u32(2 ** 20 - 1)}`, 0],
    ['a memo above 2^20', `]r${u32(2 ** 20)}`, REASON_MEMO],
    ['a line of 256 bytes', `c${'x'.repeat(256)}\nx\n`, REASON_OPERANDS],
    ['a line of 257 bytes', `c${'x'.repeat(257)}\nx\n`, REASON_LINE],
    ['a name of 1,024 bytes', named(1_024), 0],
    ['a name of 1,025 bytes', named(1_025), REASON_NAME],
    ['60,000 empty lists', `](${'](e'.repeat(60_000)}e`, 0],
    ['65,536 arrays', arrays(65_536), 0],
    ['65,537 arrays', arrays(65_537), REASON_TENSORS],
    ['70,000 values', `](${'N'.repeat(70_000)}e`, REASON_STACK],
    ['2^22 opcodes', `]${'q\x01'.repeat(2 ** 22)}`, REASON_OPCODES],
  ];
  for (const [what, parameters, expected] of cases) {
    const { bytes, begin } = isolated(parameters);
    const { reason, text } = outcomeOf(bytes, begin);
    assert.is(reason, expected, `${what}: ${text.slice(0, 200)}`);
  }
});

test('what is not a weight file is refused for that', () => {
  const cases: [string, string, string | undefined, number][] = [
    ['a list that contains itself', ']q\x01h\x01a', undefined, PICKLE_STRUCTURE],
    ['a list that a tuple in it contains', ']q\x01h\x01\x85a', undefined, PICKLE_STRUCTURE],
    ['an int for the list', 'K\x01', undefined, WEIGHTS_FORM],
    ['an int in the list', '](K\x01e', undefined, WEIGHTS_FORM],
    ['a name alone', `](X\x01\0\0\0ae`, undefined, WEIGHTS_FORM],
    ['a name without array', `](](X\x01\0\0\0aK\x01ee`, undefined, WEIGHTS_FORM],
    ['a bool for the weighting', `](${array}e`, '\x88', WEIGHTS_FORM],
    ['a weighting of 2^53', `](${array}e`, '\x8a\x07\0\0\0\0\0\0\x20', WEIGHTS_FORM],
    ['a weighting of -2^53', `](${array}e`, '\x8a\x07\0\0\0\0\0\0\xe0', WEIGHTS_FORM],
    ['a weighting of 9 bytes', `](${array}e`, '\x8a\x09\x01\0\0\0\0\0\0\0\x01', WEIGHTS_FORM],
    ['a weighting of 17 bytes', `](${array}e`, `\x8a\x11${'\0'.repeat(17)}`, PICKLE_LIMIT],
    ['a weighting with nine bytes of sign', `](${array}e`, `\x8a\x09\xfd${'\xff'.repeat(8)}`, 0],
  ];
  for (const [what, parameters, weighting, expected] of cases) {
    const { bytes, begin } = isolated(parameters, weighting);
    const { status, text } = outcomeOf(bytes, begin);
    assert.is(status, expected, `${what}: ${text.slice(0, 200)}`);
  }
  const { bytes } = isolated(`](${array}e`);
  assert.is(outcomeOf(new Uint8Array([...bytes, 0x2e]), 128).status, NPY_DATA_TRAILING);
});

test('a multiplication of lists without any array costs no more than its limit', () => {
  // Thirteen levels of 200 references each: 200^13 visits if they were followed.
  let nested = ']q\x01';
  for (let level = 1; level <= 13; level++) {
    const memo = String.fromCharCode(level);
    nested = `](${nested}${`h${memo}`.repeat(200)}eq${String.fromCharCode(level + 1)}`;
  }
  const { bytes, begin } = isolated(nested);
  assert.is(outcomeOf(bytes, begin).status, PICKLE_LIMIT);
});

test('memory follows the size of the file, whatever the opcodes', async () => {
  const size = 40_000;
  const fill = (opcodes: (i: number) => string) => {
    const parts = [];
    for (let i = 0, length = 0; length < size; i++) {
      const part = opcodes(i);
      parts.push(part);
      length += part.length;
    }
    return parts.join('');
  };
  const cases: [string, string][] = [
    ['empty lists', `](${fill(() => '](e')}e`],
    ['numbers', `]${fill(() => 'K\x01K\x01\x86a')}`],
    ['memo numbers far apart', `]${fill((i) => `r${u32((i * 7919 * 16) % 2 ** 20)}`)}`],
    ['MEMOIZE', `]${fill(() => '\x94')}`],
    ['tuples in tuples', `](${fill(() => ')\x85')}e`],
    ['arrays', `](${fill(() => array)}e`],
  ];
  for (const [what, parameters] of cases) {
    const { bytes, begin } = isolated(parameters);
    const host = await openCore(1 << 23);
    const atOnce = outcomeOf(bytes, begin, whole, host);
    assert.is.not(atOnce.text, 'memory', what);
    // The same in an arena of 64 bytes for each byte of the file, and what a walk takes in any case.
    const text = host.scope(() => {
      host.take(Math.floor((host.free - (64 * bytes.byteLength + 200_000)) / 16) * 16);
      return outcomeOf(bytes, begin, whole, host).text;
    });
    assert.is(text, atOnce.text, what);
  }
});

test('programs of random opcodes end in a refusal or in a valid result', () => {
  const random = new Random(testSeed());
  const TOKENS = [
    ...'().012aberst]}NRQ\x81\x85\x86\x87\x88\x89\x90\x93\x94',
    ...['K\x00', 'K\x01', 'K\x02', 'J\xff\xff\xff\xff', 'M\x01\x02', '\x8a\x01\x80', `G${'\0'.repeat(8)}`],
    ...['q\x00', 'q\x01', 'q\x02', 'h\x00', 'h\x01', 'h\x02', `r${u32(70_000)}`, `j${u32(70_000)}`],
    ...['C\x01b', 'C\x00', 'C\x0812345678', 'X\x01\0\0\0<', 'X\x02\0\0\0f4', 'X\x02\0\0\0O8', 'U\x02f4'],
    ...[
      'cnumpy\nndarray\n',
      'cnumpy\ndtype\n',
      'cnumpy.core.multiarray\n_reconstruct\n',
      'cnumpy.core.multiarray\nscalar\n',
    ],
    ...[
      'cnumpy.core.numeric\n_frombuffer\n',
      'c_codecs\nencode\n',
      'X\x06\0\0\0latin1',
      'X\x01\0\0\0C',
      'c__builtin__\nbytes\n',
    ],
    ...[
      dtypeOpcodes('f4'),
      dtypeOpcodes('O8', '|'),
      array,
      `](${array}e`,
      '\x95\x10\0\0\0\0\0\0\0',
      'cos\nsystem\n',
    ],
  ];
  const seen = new Map<number, number>();
  for (let i = 0; i < 40_000; i++) {
    const parameters = Array.from({ length: random.integer(1, 14) }, () => random.pick(TOKENS)).join('');
    const { bytes, begin } = isolated(parameters, random.uniform() < 0.3 ? random.pick(TOKENS) : undefined);
    const { status } = outcomeOf(bytes, begin);
    seen.set(status, (seen.get(status) ?? 0) + 1);
  }
  assert.ok(seen.size >= 6, `statuses seen: ${[...seen.keys()]}`);
});

test('the number of calls follows the size of the file', () => {
  const callsOf = (n: number) => {
    const { bytes, begin } = isolated(`](${array.repeat(n)}e`);
    return outcomeOf(bytes, begin, (_, need) => Math.max(need, 64)).calls;
  };
  const [one, two, four] = [callsOf(100), callsOf(200), callsOf(400)];
  assert.ok(two < 2.2 * one && four < 2.2 * two, `${one}, ${two}, ${four} calls`);
});

test.run();
