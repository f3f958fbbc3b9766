/**
 * Takes a raw deflate stream apart: pieces in, pieces out, in order and of any length. The result throws when the
 * stream is damaged or cut, and lets go of `packed` when its reader stops early.
 *
 * Whatever it throws is taken as the stream's fault, but for what reading `packed` throws.
 */
export type Inflate = (packed: AsyncIterable<Uint8Array>) => AsyncIterable<Uint8Array>;

/** The host's own, in browsers and in Node. */
export const inflate: Inflate = async function* (packed) {
  const iterator = packed[Symbol.asyncIterator]();
  const stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(value as Uint8Array<ArrayBuffer>); // a stream of bytes takes no shared memory
    },
    async cancel() {
      await iterator.return?.();
    },
  });
  const reader = stream.pipeThrough(new DecompressionStream('deflate-raw')).getReader();
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
