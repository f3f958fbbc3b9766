import { createHash } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Refusal } from '../../../src/server/domain/refusal.ts';
import { readFrames } from '../../../src/server/routes/frames.ts';
import { FRAME_HEAD_BYTES, MAX_BLOCK_BYTES } from '../../../src/wire/cambium.ts';
import { sameBytes } from '../../helpers/bytes.ts';

const test = suite('frames');

const BEFORE = Buffer.from('what is there');
const BLOCKS = ['one', 'x', 'and the third'].map((text) => Buffer.from(text));

/** The frames of blocks that come after `BEFORE`. */
function framed(blocks: readonly Buffer[]): Buffer {
  const hash = createHash('sha256').update(BEFORE);
  const parts = blocks.flatMap((block) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(block.byteLength);
    return [length, hash.update(block).copy().digest(), block];
  });
  return Buffer.concat(parts);
}

/** What was read, and the code of what it ended with. */
async function read(chunks: readonly Buffer[]): Promise<{ bytes: Buffer; code: string | undefined }> {
  const body = (async function* () {
    yield* chunks;
  })();
  const parts: Uint8Array[] = [];
  let end = BEFORE.byteLength;
  try {
    for await (const block of readFrames(body, end, createHash('sha256').update(BEFORE))) {
      assert.is(block.offset, end);
      parts.push(...block.chunks);
      end += block.byteLength;
      const there = Buffer.concat([BEFORE, ...parts]);
      assert.is(there.byteLength, end);
      assert.is(block.hash.copy().digest('hex'), createHash('sha256').update(there).digest('hex'));
    }
    return { bytes: Buffer.concat(parts), code: undefined };
  } catch (error) {
    return { bytes: Buffer.concat(parts), code: error instanceof Refusal ? error.code : String(error) };
  }
}

/** Bytes of the blocks whose frames end at or before `at`. */
function wholeUpTo(at: number): Buffer {
  let end = 0;
  return Buffer.concat(
    BLOCKS.filter((block) => {
      end += FRAME_HEAD_BYTES + block.byteLength;
      return end <= at;
    }),
  );
}

test('at every split point', async () => {
  const all = framed(BLOCKS);
  for (let at = 0; at <= all.byteLength; at++) {
    const { bytes, code } = await read([all.subarray(0, at), all.subarray(at)]);
    assert.is(code, undefined, `split at ${at}`);
    sameBytes(bytes, Buffer.concat(BLOCKS));
  }
});

test('every truncation gives the whole blocks before it', async () => {
  const all = framed(BLOCKS);
  const borders = [0, 1, 2, 3].map((count) => framed(BLOCKS.slice(0, count)).byteLength);
  for (let at = 0; at <= all.byteLength; at++) {
    const { bytes, code } = await read([all.subarray(0, at)]);
    assert.is(code, borders.includes(at) ? undefined : 'upload-incomplete', `cut at ${at}`);
    sameBytes(bytes, wholeUpTo(at));
  }
});

test('one changed byte costs its block and those after it', async () => {
  const all = framed(BLOCKS);
  for (let at = 0; at < all.byteLength; at++) {
    const changed = Buffer.from(all);
    changed[at]! ^= 1;
    const { bytes, code } = await read([changed]);
    assert.ok(code !== undefined, `changed at ${at}`);
    sameBytes(bytes, wholeUpTo(at));
  }
});

test('sizes of blocks: none, the largest, one more', async () => {
  const largest = Buffer.alloc(MAX_BLOCK_BYTES);
  assert.is((await read([framed([Buffer.alloc(0)])])).code, 'frame-invalid');
  assert.is((await read([framed([largest])])).code, undefined);
  assert.is((await read([framed([Buffer.alloc(MAX_BLOCK_BYTES + 1)])])).code, 'block-too-large');
});

test.run();
