/** Files behind the links that a server gives. */
import { createHash } from 'node:crypto';
import { rename, rm, writeFile } from 'node:fs/promises';
import { ProtocolError } from '../errors.ts';
import { fileError } from '../node/file-errors.ts';
import type { Http } from '../transport/http.ts';
import { withRetries } from '../transport/retry.ts';

/** What a server tells of a file. */
interface Linked {
  readonly download_url: string;
  /** Lower-case hexadecimal. */
  readonly sha256: string;
}

/**
 * Brings a file under a path, whole and with its digest, or not at all. A server that is asked for a link is near: what breaks
 * off comes again from its beginning.
 *
 * @param ask asks for a link, which works for a few minutes only
 * @throws FileError; ProtocolError `protocol-digest`; what `ask` throws
 */
export async function saveLinked<T extends Linked>(
  http: Http,
  ask: () => Promise<T>,
  to: string,
  signal: AbortSignal,
): Promise<T> {
  const next = `${to}.next`;
  try {
    const linked = await withRetries(http.policy, signal, async () => {
      const link = await ask();
      const answer = await http.open({ method: 'GET', target: link.download_url, signal });
      const hash = createHash('sha256');
      try {
        await writeFile(next, hashed(answer.chunks(), hash), { signal });
      } catch (cause) {
        throw isFileFault(cause) ? fileError(cause, next, 'write') : cause;
      } finally {
        answer.close();
      }
      const sha256 = hash.digest('hex');
      if (sha256 === link.sha256) return link;
      const what = `${answer.where}: the SHA-256 is ${sha256}, not ${link.sha256}`;
      throw new ProtocolError('protocol-digest', what);
    });
    await rename(next, to);
    return linked;
  } catch (error) {
    await rm(next, { force: true });
    throw error;
  }
}

async function* hashed(
  chunks: AsyncIterable<Uint8Array>,
  hash: ReturnType<typeof createHash>,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    hash.update(chunk);
    yield chunk;
  }
}

/** An error of the file system, not of the line. */
function isFileFault(error: unknown): boolean {
  return error instanceof Error && 'syscall' in error && 'path' in error;
}
