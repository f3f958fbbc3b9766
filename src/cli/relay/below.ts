/** The branch below as its relay sees it, with an operator's token. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { eventNotices } from '../../transport/events.ts';
import type { Http } from '../../transport/http.ts';
import { paths, type RoundBody, type RunBody, type RunStatus, type SumLinkBody } from '../../wire/cambium.ts';
import { saveLinked } from '../linked-file.ts';
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
    const ask = () => this.#http.json({ method: 'GET', target: paths.roundSum(id), signal });
    await saveLinked(this.#http, ask as () => Promise<SumLinkBody>, to, signal);
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

/** SHA-256 of a file; undefined where there is none. */
async function digestOf(path: string): Promise<string | undefined> {
  if ((await stat(path).catch(() => undefined)) === undefined) return undefined;
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
