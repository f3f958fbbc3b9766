/**
 * A branch of one server as a leaf of another: sums go up, aggregations come down, whatever happens on the way.
 *
 *     below: round summed ─► sum ─► upload above ─► aggregation there ─► handed down ─► below: round done
 *
 * What the two servers say decides what is done next; so every step can be repeated, and a relay that dies between any two
 * goes on where it was. That a sum counts once is for the server above to see: it is uploaded under a key made of the round
 * below and the round above, and before it is sent the leaf's own updates are asked for such a key. A digest would not do:
 * two rounds may have the same sum. Only when the round above was discarded is a sum sent again, into another one.
 *
 * Notices of either side say no more than that it is worth asking: of the round below that it changed, of the one above that it
 * is averaged, or given up for another one.
 */
import type { RunDetails } from '../../client/dialect.ts';
import { type CambiumError, RefusedError } from '../../errors.ts';
import { type Clock, sleep, systemClock } from '../../transport/clock.ts';
import type { OwnUpdateBody, RoundBody, RunBody } from '../../wire/cambium.ts';
import { passes, pauseMs } from '../patience.ts';
import type { LeafAbove } from './above.ts';
import { Bell } from './bell.ts';
import type { BranchBelow } from './below.ts';
import type { RelayFolder } from './folder.ts';
import type { RelayEvent } from './report.ts';

export interface RelayOptions {
  readonly above: LeafAbove;
  readonly below: BranchBelow;
  readonly folder: RelayFolder;
  readonly tell: (event: RelayEvent) => void;
  /** Start the run below with that above, and anew when that begins anew. */
  readonly follow: boolean;
  /** Rounds after which it is enough. */
  readonly rounds: number;
  readonly signal: AbortSignal;
  /** Of the pauses; the host's unless given. */
  readonly clock?: Clock | undefined;
}

/** How long a notice is waited for before the servers are asked. */
const LOOK_MS = 60_000;

/** Refusals of a sum that mean: not in this round above, perhaps in the next. */
const NOT_NOW: ReadonlySet<string> = new Set([
  'leaf-excluded',
  'leaf-not-sampled',
  'update-exists',
  'update-replaced',
]);

/** Refusals that mean: the run or its round has changed since it was asked for. */
const ASK_AGAIN: ReadonlySet<string> = new Set(['round-closed', 'run-paused', 'run-stopped']);

export class Relay {
  readonly #options: RelayOptions;
  readonly #bell = new Bell();
  #handed = 0;
  /** What is waited for, told once. */
  #waiting = '';
  /** Where the server above said that the sum of a round is, whatever key it came under. */
  #receipt: { readonly roundId: string; readonly fileId: string } | undefined;

  constructor(options: RelayOptions) {
    this.#options = options;
  }

  /** Relays until it is enough. Throws what no further try would mend; the reason of the signal. */
  async run(): Promise<void> {
    const { above, below, rounds, signal, clock = systemClock } = this.#options;
    const listening = new AbortController();
    const ring = () => this.#bell.ring();
    const listeners = [
      this.#listen((end) => below.watch(ring, end), listening.signal),
      this.#listen((end) => above.watch(ring, end), listening.signal),
    ];
    try {
      for (let fruitless = 0; this.#handed < rounds; ) {
        try {
          if (!(await this.#step())) await this.#bell.wait(clock, LOOK_MS, signal);
          fruitless = 0;
        } catch (error) {
          signal.throwIfAborted();
          if (!passes(error)) throw error;
          this.#wait('server', (error as CambiumError).message);
          await sleep(clock, pauseMs(1000, ++fruitless), signal);
        }
      }
      this.#tell({ event: 'done', rounds: this.#handed });
    } finally {
      listening.abort();
      await Promise.all(listeners);
    }
  }

  /** Listens again whenever that ends; what is wrong with a server is found out by the steps. */
  async #listen(listen: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    const { clock = systemClock } = this.#options;
    for (let attempt = 1; !signal.aborted; attempt++) {
      await listen(signal).catch(() => {});
      this.#bell.ring();
      await sleep(clock, pauseMs(1000, attempt), signal).catch(() => {});
    }
  }

  /** Does what is to be done next; false when nothing is until something happens. */
  async #step(): Promise<boolean> {
    const { above, below, follow, signal } = this.#options;
    const run = await below.run(signal);
    const details = await above.runDetails(signal);
    if (follow && (await this.#follow(run, details))) return true;
    if (run.run_number === 0) return this.#wait('run', 'the branch below has no run yet');
    const [round] = await below.summedRounds(run.run_number, signal);
    if (round === undefined) return this.#wait('round');
    const placed = await this.#find(round);
    if (placed === undefined) return this.#send(round, details);
    // Done, and the aggregation is there; before that, or when it failed, it is for the server above.
    if (placed.aggregation_id === null)
      return this.#wait('aggregation', `round ${placed.round} above is ${placed.round_status}`);
    return this.#handDown(round, placed.aggregation_id, placed.left_out);
  }

  /** Where the sum of a round counts above, or would have. */
  async #find({ id, sum }: RoundBody): Promise<OwnUpdateBody | undefined> {
    const { above, signal } = this.#options;
    const updates = await above.updates(sum!.sha256, signal); // it is summed
    const isIt = ({ file_id, idempotency_key }: OwnUpdateBody) =>
      idempotency_key?.startsWith(`${id}.`) ||
      (this.#receipt?.roundId === id && this.#receipt.fileId === file_id);
    return updates.find((update) => isIt(update) && update.round_status !== 'discarded');
  }

  /** Sends the sum of a round into the open round above. */
  async #send(round: RoundBody, details: RunDetails): Promise<boolean> {
    const { above, below, folder, signal } = this.#options;
    const { run_number: run, round: number } = round;
    const sum = round.sum!; // it is summed
    const { pair } = folder.state;
    if (pair?.below === run && pair.above !== details.runNumber && details.runNumber !== 0) {
      const reason = `run ${run} below belongs to run ${pair.above} above, which is over: stop it and start the next, or --follow`;
      return this.#wait('run', reason);
    }
    if (details.runStatus !== 'start' || details.round === null) {
      this.#wait('run', `the run above is on ${details.runStatus}`);
      await above.waitForRun(signal);
      return true;
    }
    if (pair?.below !== run) await folder.remember({ pair: { below: run, above: details.runNumber } });
    await below.fetchSum(round, folder.sum, signal);
    const { leaves, total_weighting: weighting, byte_length: bytes } = sum;
    this.#tell({ event: 'sum', run, round: number, leaves, weighting, bytes });
    const place = { run: details.runNumber, round: details.round };
    try {
      const idempotencyKey = `${round.id}.${place.run}.${place.round}`;
      const receipt = await above.upload(folder.sum, { round: place.round, idempotencyKey }, signal);
      this.#receipt = { roundId: round.id, fileId: receipt.fileId };
      const { fileId: file, isDuplicate: duplicate } = receipt;
      this.#tell({ event: 'uploaded', run, round: number, above: place, file, duplicate });
      return true;
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      if (ASK_AGAIN.has(error.code)) return true;
      if (NOT_NOW.has(error.code)) return this.#wait('round', `above: ${error.message}`);
      if (error.code !== 'update-late') throw error;
      // The others went on without it: so do the leaves below, with what the others have.
      const { aggregationId } = details;
      if (aggregationId === null || aggregationId === folder.state.handed) {
        return this.#wait('aggregation', error.message);
      }
      return this.#handDown(round, aggregationId, error.code);
    }
  }

  async #handDown(round: RoundBody, aggregation: string, left_out: string | null): Promise<boolean> {
    const { above, below, folder, signal } = this.#options;
    const { leaves, totalWeighting: weighting } = await above.download(
      aggregation,
      folder.aggregation,
      signal,
    );
    try {
      await below.handDown(round.id, folder.aggregation, leaves, signal);
    } catch (error) {
      const { code } = error as Partial<CambiumError>;
      // An operator was faster.
      if (code === 'round-not-summed' || code === 'aggregation-exists') return true;
      throw error;
    }
    await folder.remember({ handed: aggregation });
    await folder.clear();
    const { run_number: run, round: number } = round;
    this.#handed++;
    this.#tell({ event: 'handed-down', run, round: number, aggregation, leaves, weighting, left_out });
    return true;
  }

  /** Lets the run below begin with that above; true when something was done. */
  async #follow(
    run: RunBody,
    { runStatus, runNumber: above, aggregationId: model }: RunDetails,
  ): Promise<boolean> {
    const { above: leaf, below, folder, signal } = this.#options;
    const { pair } = folder.state;
    const isGoing = run.run_status !== 'stop';
    if (runStatus !== 'start' || pair?.above === above) return false;
    if (isGoing && pair?.below !== run.run_number) {
      // Started by hand, or by an earlier relay that did not live to note it.
      await folder.remember({ pair: { below: run.run_number, above } });
      return true;
    }
    if (isGoing) {
      await below.change('stop', signal);
      for (const { id } of await below.summedRounds(run.run_number, signal)) await below.discard(id, signal);
    }
    if (model !== null) await leaf.download(model, folder.aggregation, signal);
    const started = await (model === null
      ? below.change('start', signal)
      : below.startWith(folder.aggregation, signal));
    await folder.remember({ pair: { below: started.run_number, above }, handed: model });
    await folder.clear();
    this.#tell({ event: 'started', run: started.run_number, above, model });
    return true;
  }

  #tell(event: RelayEvent): void {
    this.#waiting = '';
    this.#options.tell(event);
  }

  /** Says once what is waited for. */
  #wait(what: (RelayEvent & { event: 'waiting' })['for'], reason?: string): false {
    const said = `${what} ${reason}`;
    if (said !== this.#waiting) {
      this.#options.tell({ event: 'waiting', for: what, ...(reason !== undefined && { reason }) });
    }
    this.#waiting = said;
    return false;
  }
}
