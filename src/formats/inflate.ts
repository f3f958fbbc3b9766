import { UnavailableError } from '../errors.ts';

/**
 * Takes a raw deflate stream apart: pieces in, pieces out, in order and of any length. The result throws when the
 * stream is damaged or cut, and lets go of `packed` when its reader stops early.
 *
 * Whatever it throws is taken as the stream's fault, but for what reading `packed` throws.
 */
export type Inflate = (packed: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>;

/** What goes into the host's stream at a time: it may come out a thousand times as long, and all at once. */
const PIECE = 32 << 10;

/**
 * The host's own, in browsers and in Node.
 *
 * The pieces are written by hand, each when the one before it is through: Node's stream takes 16,384 of them before a
 * pipe would feel any pressure.
 */
export const inflate: Inflate = async function* (packed) {
  if (typeof DecompressionStream === 'undefined') {
    throw new UnavailableError(
      'unavailable-inflate',
      'this host has no DecompressionStream, which compressed archives need',
    );
  }
  const { readable, writable } = new DecompressionStream('deflate-raw');
  const writer = writable.getWriter();
  const reader = readable.getReader();
  const feed = async () => {
    try {
      for await (const bytes of packed) {
        for (let at = 0; at < bytes.byteLength; at += PIECE) {
          // A stream of bytes takes no shared memory; ours never is.
          await writer.write(bytes.subarray(at, at + PIECE) as Uint8Array<ArrayBuffer>);
        }
      }
      await writer.close();
    } catch (error) {
      await writer.abort(error);
    }
  };
  feed().catch(() => {}); // what goes wrong is what `read` throws
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {}); // a stream that failed has said so in `read`
  }
};
