/**
 * Blocks of an upload in frames, many in a request: length (4 bytes, big-endian), SHA-256 over all bytes of the upload up
 * to the block's end (32 bytes), the block. One digest, carried on from block to block, does for each and for the whole.
 */
import type { Hash } from 'node:crypto';
import { FRAME_HEAD_BYTES, MAX_BLOCK_BYTES } from '../../wire/cambium.ts';
import { Refusal } from '../domain/refusal.ts';
import { blockTooLarge } from '../store/spool.ts';
import { digestMismatch } from './digest.ts';

/** Written at once. With a frame that is not whole yet it is what a kill loses: together less than a block. */
const WRITE_BYTES = 512 << 10;

/** Bytes that are right, and where they belong. */
export interface CheckedBlock {
  readonly offset: number;
  readonly byteLength: number;
  readonly chunks: readonly Uint8Array[];
  /** Over all bytes up to the end of the block; the reader's own. */
  readonly hash: Hash;
}

/**
 * Reads frames to the end of the body and gives their blocks, several together where they are small: a write for each
 * would cost more than it is worth. Whatever is wrong with a later one, the right ones come first.
 *
 * @param body chunks as they arrive; its error, when it breaks off, is thrown after the last whole block
 * @param offset where the first block belongs
 * @param hash over all bytes before it; used up
 * @throws Refusal `digest-mismatch`, `block-too-large`, `frame-invalid`, `upload-incomplete`
 */
export async function* readFrames(
  body: AsyncIterable<Uint8Array>,
  offset: number,
  hash: Hash,
): AsyncGenerator<CheckedBlock, void, void> {
  const head = Buffer.alloc(FRAME_HEAD_BYTES);
  /** Bytes of the head that are there; of the frame's block those that are missing. */
  let headed = 0;
  let missing = 0;
  let frame: Uint8Array[] = [];
  let running = hash;
  let ready: Uint8Array[] = [];
  let readyBytes = 0;
  let checked = hash.copy();
  const take = (): CheckedBlock => {
    const block = { offset, byteLength: readyBytes, chunks: ready, hash: checked.copy() };
    offset += readyBytes;
    ready = [];
    readyBytes = 0;
    return block;
  };
  try {
    for await (const chunk of body) {
      for (let at = 0; at < chunk.byteLength; ) {
        if (missing === 0) {
          const part = chunk.subarray(at, at + FRAME_HEAD_BYTES - headed);
          head.set(part, headed);
          headed += part.byteLength;
          at += part.byteLength;
          if (headed < FRAME_HEAD_BYTES) continue;
          headed = 0;
          missing = head.readUInt32BE(0);
          if (missing > MAX_BLOCK_BYTES) throw blockTooLarge(MAX_BLOCK_BYTES);
          if (missing === 0) throw new Refusal('malformed', 'frame-invalid', 'a frame has no bytes');
          continue;
        }
        const part = chunk.subarray(at, at + missing);
        running.update(part);
        frame.push(part);
        at += part.byteLength;
        missing -= part.byteLength;
        if (missing > 0) continue;
        const actual = running.copy().digest();
        const expected = head.subarray(4);
        if (!actual.equals(expected))
          throw digestMismatch('the frame', expected.toString('hex'), actual.toString('hex'));
        checked = running;
        running = checked.copy();
        ready.push(...frame);
        readyBytes += head.readUInt32BE(0);
        frame = [];
        if (readyBytes >= WRITE_BYTES) yield take();
      }
    }
  } catch (error) {
    if (readyBytes > 0) yield take();
    throw error;
  }
  if (readyBytes > 0) yield take();
  if (headed > 0 || missing > 0) {
    throw new Refusal('malformed', 'upload-incomplete', 'the last frame ended before its last byte');
  }
}
