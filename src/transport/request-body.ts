/** What is sent: in one piece, or as it is read. */

/** A body sent in one piece shows no progress; it gets the time that a line of this many bytes per second needs. */
const SLOWEST_LINE = 16 << 10;

/** The bytes of a body that any server can check in a second. */
const SLOWEST_SERVER = 8 << 20;

/** Bytes to send. */
export type RequestBody =
  | {
      readonly byteLength: number;
      /** Called once per attempt; exactly `byteLength` bytes must come. Each may lie in the memory of the one before the last. */
      readonly chunks: () => AsyncIterable<Uint8Array>;
      /** Called with the bytes handed over so far; begins again at 0 with each attempt. */
      readonly onSent?: ((bytes: number) => void) | undefined;
    }
  | { readonly byteLength: number; readonly whole: Uint8Array | Blob };

interface BodyEvents {
  /** Whether a chunk has left before the next is asked for; else it gets memory of its own. */
  readonly leavesFirst: boolean;
  onChunk(): void;
  onEnd(): void;
  onError(error: unknown): void;
}

export function bodyOf(
  body: RequestBody,
  over: AbortSignal,
  events: BodyEvents,
): ReadableStream<Uint8Array> | Uint8Array | Blob {
  if ('whole' in body) return body.whole;
  const iterator = body.chunks()[Symbol.asyncIterator]();
  let sent = 0;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const next = await iterator.next();
          // A read that outlives its attempt must not be counted into the next one.
          if (over.aborted) {
            controller.error(over.reason);
            await iterator.return?.();
            return;
          }
          if (next.done) {
            events.onEnd();
            controller.close();
            return;
          }
          events.onChunk();
          sent += next.value.byteLength;
          body.onSent?.(sent);
          controller.enqueue(events.leavesFirst ? next.value : next.value.slice());
        } catch (error) {
          events.onError(error);
          controller.error(error);
        }
      },
      async cancel() {
        await iterator.return?.();
      },
    },
    // Nothing is read ahead: a chunk exists only while the connection takes it.
    { highWaterMark: 0 },
  );
}

/** A streamed body would go out in chunked coding, which hides a cut and its size. Browsers ignore the header. */
export function lengthHeader(body: RequestBody): Record<string, string> {
  return 'whole' in body ? {} : { 'content-length': String(body.byteLength) };
}

/** A server reads and checks what it got before it answers. */
export function digestionMs(body: RequestBody | undefined): number {
  return body === undefined ? 0 : checkingMs(body.byteLength);
}

export function checkingMs(byteLength: number): number {
  return Math.ceil((byteLength / SLOWEST_SERVER) * 1000);
}

export function wholeBodyMs(body: RequestBody | undefined): number {
  return body === undefined ? 0 : Math.ceil((body.byteLength / SLOWEST_LINE) * 1000);
}
