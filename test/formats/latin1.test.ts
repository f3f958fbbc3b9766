// Elements that a pickle spells as text, as NumPy up to 1.16 under Python 3 wrote them.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openWeights } from '../../src/formats/open.ts';
import { readTensors } from '../../src/formats/read.ts';
import { memoryScratch, memorySource } from '../../src/tensor/bytes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { arrayOpcodes, counted, encodedText, textOpcodes, u32, weightFile } from '../helpers/pickles.ts';
import { Random, testSeed } from '../helpers/random.ts';

const test = suite('formats/latin1');

/** A file of one array of bytes around the opcodes of its payload. */
const fileAround = (payload: string, count: number, name = 'u1') =>
  weightFile(`](${arrayOpcodes(`J${u32(count)}\x85`, payload, name)}e`, 'K\x05', 2);

const read = async (bytes: Uint8Array) => (await readTensors(memorySource(bytes, 'weights.npy'))).tensors;

test('every byte comes back, kept in the walk or not', async () => {
  const all = Uint8Array.from({ length: 256 }, (_, i) => i);
  for (const times of [1, 2, 3, 8]) {
    const payload = new Uint8Array(256 * times);
    for (let i = 0; i < times; i++) payload.set(all, 256 * i);
    const [tensor] = await read(fileAround(textOpcodes(payload), payload.byteLength));
    sameBytes(tensor!.data, payload, `${times} times`);
  }
});

test('random elements of every length around the limit of what is kept', async () => {
  const random = new Random(testSeed());
  for (let length = 0; length < 1_100; length += random.integer(1, 13)) {
    const payload = Uint8Array.from({ length }, () => random.bits() & 255);
    const [tensor] = await read(fileAround(textOpcodes(payload), length));
    sameBytes(tensor!.data, payload, `${length} bytes`);
  }
});

test('a byte that the end of a block cuts in two', async () => {
  const block = 256 << 10;
  for (const before of [0, 1, 2]) {
    const payload = new Uint8Array(block + 3);
    payload.fill(0xe9, before);
    const file = fileAround(textOpcodes(payload), payload.byteLength);
    sameBytes((await read(file))[0]!.data, payload, `${before} bytes before`);
  }
});

test('tensors of text beside others, in both orders and byte orders', async () => {
  const f8 = new Uint8Array(new Float64Array([1, -2, Math.PI, 1e300]).buffer);
  const parameters = [
    arrayOpcodes('K\x02\x85', 'C\x0812345678'),
    arrayOpcodes('K\x02K\x02\x86', textOpcodes(f8), 'f8'),
    arrayOpcodes('K\x02K\x02\x86', textOpcodes(f8), 'f8').replace('\x89c_codecs', '\x88c_codecs'),
    arrayOpcodes('K\x04\x85', textOpcodes(Uint8Array.from(f8).reverse()), 'f8').replace('\0<NNN', '\0>NNN'),
  ].join('');
  const tensors = await read(weightFile(`](${parameters}e`, 'K\x05', 2));
  const numbers = tensors.slice(1).map(({ data }) => [...new Float64Array(data.slice().buffer)]);
  assert.equal(numbers, [
    [1, -2, Math.PI, 1e300],
    [1, Math.PI, -2, 1e300],
    [1e300, Math.PI, -2, 1],
  ]);
});

test('what does not spell bytes is refused at its byte', async () => {
  const long = 'x'.repeat(2_000); // more than is kept: read when it is unpacked
  const cases: [what: string, text: string, code: string, at: number][] = [
    ['a second byte alone', '\x80', 'pickle-structure', 0],
    ['a character above ff', '\xc4\x80', 'pickle-structure', 0],
    ['an overlong form', '\xc1\xbf', 'pickle-structure', 0],
    ['a character of three bytes', '\xe2\x82\xac', 'pickle-structure', 0],
    ['a first byte twice', '\xc3\xc3\xa9', 'pickle-structure', 1],
    ['a first byte before an ASCII one', '\xc3x', 'pickle-structure', 1],
  ];
  for (const [what, text, code, at] of cases) {
    for (const [place, before, after] of [
      ['first', '', long],
      ['in the middle', long, long],
      ['last', long, ''],
    ]) {
      const whole = `${before}${text}${after}`;
      const file = fileAround(encodedText(whole), whole.length - 1);
      const error = (await failsWith(code, () => read(file))) as Error & { offset?: number; tensor?: number };
      const offset = Buffer.from(file).indexOf(whole, 0, 'latin1') + before!.length + at;
      assert.equal([error.offset, error.tensor], [offset, 0], `${what}, ${place}`);
    }
  }
  const cut = fileAround(encodedText(`${long}\xc3`), 2_000);
  await failsWith('pickle-structure', () => read(cut));
  await failsWith('pickle-structure', () => read(fileAround(encodedText('ab\xc3'), 3)));
  await failsWith('pickle-structure', () => read(fileAround(encodedText('ab\xc4\x80'), 3)));
});

test('text that means another number of bytes', async () => {
  const open = (bytes: Uint8Array) => openWeights(memorySource(bytes));
  const payload = textOpcodes(new Uint8Array(3_000).fill(0xff, 0, 1_000)); // 4,000 bytes in UTF-8
  for (const count of [1_999, 4_001])
    await failsWith('pickle-mismatch', () => open(fileAround(payload, count)));
  for (const count of [2_000, 2_999, 3_001, 4_000]) {
    const file = fileAround(payload, count);
    await open(file); // could be
    const { message } = await failsWith('pickle-mismatch', () => read(file));
    assert.match(message, new RegExp(`tensor 0.*\\b${count}\\b.*at byte \\d+`));
  }
  const short = textOpcodes(new Uint8Array(10).fill(0xff));
  for (const count of [9, 11, 20]) await failsWith('pickle-mismatch', () => open(fileAround(short, count)));
});

test('a layout skips the text; many arrays of one text are not unpacked without bound', async () => {
  const megabyte = textOpcodes(new Uint8Array(1 << 20).fill(0x80, 0, 1 << 19));
  const source = counted(memorySource(fileAround(megabyte, 1 << 20)));
  const { unpack } = await openWeights(source);
  assert.ok(source.count.bytes < 2_000, `${source.count.bytes} bytes read`);
  await failsWith('pickle-limit', () => unpack!({ scratch: memoryScratch, maxByteLength: 1_000_000 }));

  const many = weightFile(
    `](${arrayOpcodes(`J${u32(1 << 20)}\x85`, megabyte)}q\x07${'h\x07'.repeat(40)}e`.replace(
      'X\x02\0\0\0f4',
      'X\x02\0\0\0u1',
    ),
    'K\x05',
    2,
  );
  await failsWith('pickle-limit', () => read(many));
});

test.run();
