/** Good answers, and how their bodies are read. */
import { ProtocolError } from '../errors.ts';

/** An answer in JSON is refused above this, before it fills the memory. Ours have a few kilobytes. */
const MAX_JSON_BYTES = 16 << 20;

/** A good answer (2xx) whose body has not been read. It must be closed. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers: Headers;
  /** The request in words, for messages. */
  readonly where: string;
  /** What may be shown of a text that came in the body. */
  preview(text: string): string;
  /** The body as it comes. A chunk is good until the next one is asked for. A cut is a TransientFailure. */
  chunks(): AsyncGenerator<Uint8Array, void, void>;
  /** Ends the exchange; harmless after the body's end. */
  close(): void;
}

/** Reads an answer as JSON and closes it; `undefined` for a 204. Throws ProtocolError `protocol-not-json`. */
export async function readJson(answer: HttpAnswer): Promise<unknown> {
  try {
    if (answer.status === 204) return undefined;
    const text = await readText(answer.chunks(), MAX_JSON_BYTES, answer.where);
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw new ProtocolError(
        'protocol-not-json',
        `${answer.where}: answered ${answer.status} with ${answer.headers.get('content-type') ?? 'no content type'}` +
          ' instead of JSON; is this the address of a Cambium server, and is there a log-in page in between?',
        { status: answer.status, preview: answer.preview(text), cause },
      );
    }
  } finally {
    answer.close();
  }
}

/** Reads a body as UTF-8 text of at most `limit` bytes. */
export async function readText(
  chunks: AsyncIterable<Uint8Array>,
  limit: number,
  where: string,
): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  for await (const chunk of chunks) {
    bytes += chunk.byteLength;
    if (bytes > limit) {
      throw new ProtocolError('protocol-too-long', `${where}: the answer is longer than ${limit} bytes`);
    }
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

export interface ChunkEvents {
  /** Called before each read. */
  onWait?(): void;
  /** Called while the consumer has a chunk. */
  onYield?(): void;
  /** What is thrown for an error. */
  explain?(error: unknown): unknown;
}

/** Body chunks. One generator: each that is nested in another costs a large body as much as all else here. */
export async function* readChunks(
  response: Response,
  signal: AbortSignal,
  { onWait, onYield, explain }: ChunkEvents = {},
): AsyncGenerator<Uint8Array, void, void> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  // Of no consequence when the body has ended or failed; else it releases the connection.
  const cancel = () => void reader.cancel().catch(() => {});
  signal.addEventListener('abort', cancel);
  try {
    for (;;) {
      onWait?.();
      const { done, value } = await reader.read();
      onYield?.();
      // A cancelled body looks as if it had ended.
      signal.throwIfAborted();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw explain === undefined ? error : explain(error);
  } finally {
    signal.removeEventListener('abort', cancel);
    cancel();
  }
}
