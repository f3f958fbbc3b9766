// Node's Blobs have the streams that Chromium's have: what is read does not depend on how. Speed and streams that are collected
// are matters of real pages: door.test.ts, heap.long.ts.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { canDivide, isStreamed, openBlob, openBlobHandle } from '../../src/browser/blob-streams.ts';
import { blobSource } from '../../src/tensor/blob.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random } from '../helpers/random.ts';

const test = suite('browser/blob-streams');

const LENGTH = 6_000_011;
const bytes = new Uint8Array(LENGTH);
const random = new Random(31);
for (let i = 0; i < LENGTH; i++) bytes[i] = random.bits();

/** Counts the streams that are opened, and where. */
class Counted extends File {
  opened = 0;

  override slice(start = 0, end = LENGTH) {
    return new Part(this, super.slice(start, end));
  }

  override stream() {
    this.opened++;
    return super.stream();
  }
}

class Part extends Blob {
  readonly #owner: Counted;

  constructor(owner: Counted, part: Blob) {
    super([part]);
    this.#owner = owner;
  }

  override stream() {
    this.#owner.opened++;
    return super.stream();
  }
}

async function read(source: ReturnType<typeof openBlob>, offset: number, length: number): Promise<void> {
  const target = new Uint8Array(length);
  const count = await source.readInto(offset, target);
  const expected = bytes.subarray(offset, offset + length);
  assert.is(count, expected.length, `${length} bytes at ${offset}`);
  sameBytes(target.subarray(0, count), expected);
}

test('reads in order, with gaps, are one stream', async () => {
  const blob = new Counted([bytes], 'file');
  const source = openBlob(blob, 'blob', 2);
  for (let at = 207; at < LENGTH; at += 400_000 + random.integer(0, 200_000)) await read(source, at, 400_000);
  assert.is(blob.opened, 1);
  await source.close();
});

test('places that are read in turn, at once, have a stream each', async () => {
  const blob = new Counted([bytes], 'file');
  const source = openBlob(blob, 'blob', 1);
  const places = [0, 1_500_000, 3_000_000, 4_500_000];
  for (let at = 0; at < 1_400_000; at += 200_000) {
    await Promise.all(places.map((place) => read(source, place + at, 200_000)));
  }
  assert.is(blob.opened, places.length);
  await source.close();
});

test('reads anywhere, many at once, bring what a slice brings', async () => {
  const source = openBlob(new Counted([bytes], 'file'), 'blob', 32);
  for (let round = 0; round < 20; round++) {
    const reads = Array.from({ length: 9 }, () => {
      const offset = random.integer(0, LENGTH - 1);
      return read(source, offset, random.integer(1, 700_000));
    });
    await Promise.all(reads);
  }
  await source.close();
});

/** A File in memory that the browser has no room to copy from. */
class Scarce extends File {
  override slice(): Blob {
    return new Lost();
  }
}

class Lost extends Blob {
  override stream(): ReturnType<Blob['stream']> {
    const fail = async () => {
      throw new TypeError('network error');
    };
    return new ReadableStream({ type: 'bytes', pull: fail }) as ReturnType<Blob['stream']>;
  }
}

test('where slices cannot be had, or are copies, the whole is read up to the place', async () => {
  for (const blob of [new Scarce([bytes], 'file'), new Blob([bytes])]) {
    const source = openBlob(blob, 'blob', 1);
    for (const offset of [3_000_000, 3_300_000, 100]) await read(source, offset, 300_000);
    await source.close();
  }
});

test('a Blob that cannot be read any more is an error', async () => {
  const source = openBlob(new Lost([bytes]), 'gone', 1);
  await failsWith('file-changed', async () => source.readInto(0, new Uint8Array(100_000)));
  await source.close();
});

test('many sources are not streamed, and handles open what they name', async () => {
  assert.is(isStreamed(32), true);
  assert.is(isStreamed(33), false);
  const blob = new Counted([bytes], 'file');
  await read(openBlob(blob, 'blob', 33), 1_000, 300_000);
  assert.is(blob.opened, 0);
  const { handle } = blobSource(blob, 'blob');
  await read(openBlobHandle(handle!, 1), 1_000, 300_000);
  const joined = { kind: 'joined', source: handle!, scratch: handle! } as const;
  const both = openBlobHandle(joined, 1);
  await read(both, LENGTH - 200_000, 200_000);
  const target = new Uint8Array(300_000);
  assert.is(await both.readInto(LENGTH + 5, target), target.length);
  sameBytes(target, bytes.subarray(5, 300_005));
  assert.throws(
    () => openBlobHandle({ kind: 'file', name: 'x', byteLength: 1, descriptor: 1 }, 1),
    (error: unknown) => error instanceof RangeError,
  );
});

test('threads share Files, and what is not streamed', () => {
  const handleOf = (blob: Blob) => blobSource(blob, 'blob').handle!;
  const file = handleOf(new File([bytes], 'file'));
  const blob = handleOf(new Blob([bytes]));
  assert.is(canDivide([file, file]), true);
  assert.is(canDivide([file, blob]), false);
  assert.is(canDivide([file, { kind: 'joined', source: file, scratch: file }]), false);
  assert.is(canDivide(Array.from({ length: 33 }, () => blob)), true);
});

test.run();
