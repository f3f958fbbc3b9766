import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CHUNK } from '../../assembly/abi.ts';
import { planRanges } from '../../src/aggregate/ranges.ts';
import type { Encoding } from '../../src/formats/encoding.ts';
import { Random, testSeed } from '../helpers/random.ts';

const test = suite('ranges');

/** A file with a literal of each length before each payload, and one at the end. */
function encodingOf(literals: readonly number[], payloads: readonly number[]): Encoding {
  const encoding = {
    byteLength: 0,
    literals: [] as Encoding['literals'][number][],
    payloads: [] as Encoding['payloads'][number][],
  };
  for (let i = 0; i <= payloads.length; i++) {
    const bytes = Uint8Array.from({ length: literals[i] ?? 0 }, (_, b) => (i * 31 + b) & 255);
    if (bytes.length > 0) encoding.literals.push({ offset: encoding.byteLength, bytes });
    encoding.byteLength += bytes.length;
    if (i === payloads.length) break;
    encoding.payloads.push({ offset: encoding.byteLength, byteLength: payloads[i]! });
    encoding.byteLength += payloads[i]!;
  }
  return encoding;
}

/** Ranges must cover the file once, in order, with every element in its place. */
function checkCover(encoding: Encoding, itemSizes: readonly number[], blockBytes: number): void {
  const file = new Uint8Array(encoding.byteLength);
  const next = encoding.payloads.map(() => 0);
  let end = 0;
  const ranges = planRanges(encoding, itemSizes, blockBytes);
  for (let i = 0; i < ranges.length; i++) {
    const range = ranges.at(i);
    assert.is(range.offset, end);
    assert.ok(range.byteLength > 0 && range.byteLength <= blockBytes, `${range.byteLength} of ${blockBytes}`);
    end += range.byteLength;
    let filled = 0;
    for (const { at, bytes } of range.literals) {
      file.set(bytes, range.offset + at);
      filled += bytes.byteLength;
    }
    for (const { tensor, start, count, at } of range.segments) {
      const size = itemSizes[tensor]!;
      assert.is(start, next[tensor]);
      assert.is(range.offset + at, encoding.payloads[tensor]!.offset + start * size);
      if (blockBytes >= CHUNK * size) assert.is(start % CHUNK, 0, 'ranges begin on borders of chunks');
      next[tensor] = start + count;
      filled += count * size;
    }
    assert.is(filled, range.byteLength);
  }
  assert.is(end, encoding.byteLength);
  for (const [tensor, { byteLength }] of encoding.payloads.entries())
    assert.is(next[tensor], byteLength / itemSizes[tensor]!);
  for (const { offset, bytes } of encoding.literals) {
    assert.equal([...file.subarray(offset, offset + bytes.length)], [...bytes]);
  }
}

test('cover the file without gap or overlap, for blocks of any size', () => {
  const random = new Random(testSeed());
  for (let round = 0; round < 200; round++) {
    const itemSizes = Array.from(
      { length: Math.floor(random.uniform() * 6) },
      () => 2 ** Math.floor(random.uniform() * 5),
    );
    const payloads = itemSizes.map((size) => size * Math.floor(random.uniform() ** 3 * 20_000));
    const literals = Array.from({ length: itemSizes.length + 1 }, () => Math.floor(random.uniform() * 300));
    const encoding = encodingOf(literals, payloads);
    for (const blockBytes of [16, 17, 64, 1000, CHUNK * 4, CHUNK * 16, 1 << 20])
      checkCover(encoding, itemSizes, blockBytes);
  }
});

test('many small tensors share a range', () => {
  const encoding = encodingOf(Array(1001).fill(50), Array(1000).fill(64));
  assert.is(planRanges(encoding, Array(1000).fill(4), 256 << 10).length, 1);
});

test('a block that holds no element is refused', () => {
  for (const blockBytes of [7, Number.NaN]) {
    assert.throws(
      () => planRanges(encodingOf([], [8]), [8], blockBytes),
      (error: unknown) => error instanceof RangeError,
    );
  }
});

test.run();
