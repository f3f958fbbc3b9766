/** The branch below as its relay sees it, with an operator's token. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { rename, stat, writeFile } from 'node:fs/promises';
import { ProtocolError } from '../../errors.ts';
import { fileError } from '../../node/file-errors.ts';
import { eventNotices } from '../../transport/events.ts';
import type { Http } from '../../transport/http.ts';
import { withRetries } from '../../transport/retry.ts';
import { paths, type RoundBody, type RunBody, type RunStatus, type SumLinkBody } from '../../wire/cambium.ts';
import { fileBody } from '../operator.ts';

export class BranchBelow {
  readonly #http: Http;
  readonly #branch: string;

  constructor(http: Http, branch: string) {
    this.#http = http;
    this.#branch = branch;
  }

  async run(signal: AbortSignal): Promise<RunBody> {
    return (await this.#http.json({ method: 'GET', target: paths.run(this.#branch), signal })) as RunBody;
  }

  /** Rounds of a run that wait for their aggregation, the oldest first. */
  async summedRounds(run: number, signal: AbortSignal): Promise<readonly RoundBody[]> {
    const query = { run, status: 'summed' };
    const { items } = (await this.#http.json({
      method: 'GET',
      target: paths.rounds(this.#branch),
      query,
      signal,
    })) as { readonly items: readonly RoundBody[] };
    return [...items].sort((a, b) => a.round - b.round);
  }

  /** Brings the sum of a round into a file, unless it is there. Throws FileError; ProtocolError `protocol-digest`. */
  async fetchSum({ id, sum }: RoundBody, to: string, signal: AbortSignal): Promise<void> {
    if (sum !== null && (await digestOf(to)) === sum.sha256) return;
    const next = `${to}.next`;
    // This server is near: what breaks off comes again from its beginning.
    await withRetries(this.#http.policy, signal, async () => {
      const target = paths.roundSum(id);
      const link = (await this.#http.json({ method: 'GET', target, signal })) as SumLinkBody;
      const answer = await this.#http.open({ method: 'GET', target: link.download_url, signal });
      const hash = createHash('sha256');
      try {
        await writeFile(next, hashed(answer.chunks(), hash), { mode: 0o600, signal });
      } catch (cause) {
        throw isFileFault(cause) ? fileError(cause, next, 'write') : cause;
      } finally {
        answer.close();
      }
      const sha256 = hash.digest('hex');
      if (sha256 !== link.sha256) {
        throw new ProtocolError(
          'protocol-digest',
          `${answer.where}: the SHA-256 is ${sha256}, not ${link.sha256}`,
        );
      }
    });
    await rename(next, to);
  }

  /** Ends a round with the aggregation from above. */
  async handDown(
    roundId: string,
    file: string,
    leaves: number | null,
    signal: AbortSignal,
  ): Promise<RoundBody> {
    const target = paths.roundAggregation(roundId);
    const query = leaves === null ? {} : { leaves };
    const body = await fileBody(file);
    return (await this.#http.json({ method: 'POST', target, query, body, signal })) as RoundBody;
  }

  async change(run_status: RunStatus, signal: AbortSignal): Promise<RunBody> {
    const target = paths.run(this.#branch);
    return (await this.#http.json({ method: 'POST', target, json: { run_status }, signal })) as RunBody;
  }

  /** Starts a run with a model. */
  async startWith(model: string, signal: AbortSignal): Promise<RunBody> {
    const target = paths.runModel(this.#branch);
    const body = await fileBody(model);
    return (await this.#http.json({ method: 'POST', target, body, signal })) as RunBody;
  }

  async discard(roundId: string, signal: AbortSignal): Promise<void> {
    await this.#http.json({ method: 'POST', target: paths.roundDiscard(roundId), signal });
  }

  /** Calls back at every change of a round, until the stream ends. */
  async watch(onChange: () => void, signal: AbortSignal): Promise<void> {
    for await (const _ of eventNotices(this.#http, paths.watch(this.#branch)).open({ signal })) onChange();
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

/** SHA-256 of a file; undefined where there is none. */
async function digestOf(path: string): Promise<string | undefined> {
  if ((await stat(path).catch(() => undefined)) === undefined) return undefined;
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** An error of the file system, not of the line. */
function isFileFault(error: unknown): boolean {
  return error instanceof Error && 'syscall' in error && 'path' in error;
}
