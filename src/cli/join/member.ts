/**
 * A leaf that takes part, round by round, whatever happens around it. What the server says of the run decides what is done
 * next; notices only say that it is worth asking. So a notice that was lost, a night in which the machine slept and a
 * restart of either side cost a look, not a round.
 */
import { rename, stat } from 'node:fs/promises';
import type { RunDetails } from '../../client/dialect.ts';
import { requireLike } from '../../client/weights.ts';
import {
  AggregationError,
  CambiumError,
  FileError,
  FormatError,
  isCambiumError,
  RefusedError,
} from '../../errors.ts';
import type { Client } from '../../node/client.ts';
import { fileError } from '../../node/file-errors.ts';
import { guardFile, syncPath } from '../../node/files.ts';
import type { Jobs } from '../../node/jobs.ts';
import type { Layout, WeightsFormat } from '../../tensor/layout.ts';
import { type Clock, sleep, systemClock } from '../../transport/clock.ts';
import { linkSignals } from '../../transport/signals.ts';
import type { MetricsMode } from '../../wire/cambium.ts';
import { passes, pauseMs } from '../patience.ts';
import type { JoinFolder, Place } from './folder.ts';
import { type Metrics, readMetricsFile, readMetricsLine } from './metrics.ts';
import { PROGRAM_MISSING, type ProgramFacts, runProgram } from './program.ts';
import type { JoinReport } from './report.ts';

/** What happens when the program fails: it is tried again and then the round is left out; left out at once; the end. */
export type FailurePolicy = 'retry' | 'skip' | 'stop';

export interface MemberOptions {
  readonly client: Client;
  readonly folder: JoinFolder;
  readonly jobs: Jobs;
  readonly report: JoinReport;
  readonly program: readonly string[];
  readonly format: WeightsFormat;
  /** For files that have none. */
  readonly weighting: number | undefined;
  readonly policy: FailurePolicy;
  /** Further attempts of the program in a round, under `retry`. */
  readonly retries: number;
  /** First pause before one, in milliseconds; it doubles. */
  readonly retryMs: number;
  readonly timeoutMs: number | undefined;
  /** Contributions after which it is enough. */
  readonly rounds: number;
  /** Whether anything can bring word of aggregations. */
  readonly isTold: boolean;
  readonly signal: AbortSignal;
  /** For the pauses. Default: the system's. */
  readonly clock?: Clock | undefined;
}

/** How long a notice is waited for before the server is asked. */
const LOOK_MS = 60_000;

/** How long a server that tells no aggregation when asked is given to tell one by a notice, at first. */
const FIRST_NOTICE_MS = 5_000;

/** Refusals of an update that mean: not this one, perhaps the next. */
const TOO_LATE: ReadonlySet<string> = new Set([
  'leaf-excluded',
  'leaf-not-sampled',
  'round-closed',
  'run-stopped',
  'update-exists',
  'update-late',
  'update-replaced',
]);

export class Member {
  readonly #options: MemberOptions;
  #contributions = 0;
  /** Rounds that were left out and must not be begun again. */
  #skipped: Place | null = null;
  /** The newest aggregation that a notice told. */
  #told: string | null = null;
  /** The run that it belongs to. */
  #run: number | null = null;
  /** A round was given up since the server was last asked. */
  #isOutdated = false;
  /** Ends the wait for an aggregation. */
  #wake = () => {};
  /** Whether the present model is the best that can be had: nothing newer came for as long as a look takes. */
  #isWorthTraining = false;

  constructor(options: MemberOptions) {
    this.#options = options;
  }

  /** Takes part until it is enough. Throws what no further try would mend; the reason of the signal. */
  async takePart(): Promise<void> {
    const { client, rounds, isTold } = this.#options;
    // Now, not after the hours that the first update takes.
    if (!isTold && rounds > 1) throw brokerMissing();
    const off = client.on('roundGivenUp', () => {
      this.#isOutdated = true;
      this.#wake();
    });
    try {
      await this.#takeRounds();
    } finally {
      off();
    }
  }

  async #takeRounds(): Promise<void> {
    const { rounds, signal, report, clock = systemClock } = this.#options;
    for (let fruitless = 0; this.#contributions < rounds; ) {
      try {
        await this.#step();
        fruitless = 0;
      } catch (error) {
        signal.throwIfAborted();
        if (!passes(error)) throw error;
        const reason = (error as CambiumError).message;
        report.tell({ event: 'waiting', for: 'server', reason });
        await sleep(clock, pauseMs(1000, ++fruitless), signal);
      }
    }
    report.tell({ event: 'done', rounds: this.#contributions });
  }

  async #step(): Promise<void> {
    const { client, folder, isTold, report, signal } = this.#options;
    this.#isOutdated = false;
    const details = await client.getRunDetails({ signal });
    if (details.runStatus !== 'start') {
      report.tell({ event: 'waiting', for: 'run' });
      return client.waitForRun({ signal });
    }
    await this.#sendMetrics();
    const { pending } = folder.state;
    if (pending !== null) return this.#sendKept(pending);
    const place = await this.#placeOf(details);
    if (this.#isDone(place, details.givenUpRound)) {
      if (!isTold) throw brokerMissing();
      return this.#listen();
    }
    this.#isWorthTraining = false;
    await this.#contribute(place);
  }

  /** Where the leaf would go on. */
  async #placeOf({ runNumber: run, round, aggregationId }: RunDetails): Promise<Place> {
    if (run !== this.#run) this.#told = null;
    this.#run = run;
    if (round !== null) return { run, round, aggregationId };
    // Servers that tell neither round nor aggregation: notices and memory say where we are.
    const { contributed } = this.#options.folder.state;
    const known = this.#told ?? (contributed?.run === run ? contributed.aggregationId : null);
    if (this.#options.isTold && known === null && contributed?.run !== run)
      await this.#listen(FIRST_NOTICE_MS);
    return { run, round, aggregationId: this.#told ?? known };
  }

  /** Whether nothing is to be done here until something happens. */
  #isDone(place: Place, givenUpRound: number | null): boolean {
    const isBehind = (done: Place | null) => {
      if (done === null || done.run !== place.run) return false;
      if (place.round === null || done.round === null) return done.aggregationId === place.aggregationId;
      if (place.round <= done.round) return true;
      // The next round is open while the last is being averaged: its model is worth some patience.
      const isAwaited = done.aggregationId === place.aggregationId && done.round !== givenUpRound;
      return isAwaited && !this.#isWorthTraining;
    };
    return isBehind(this.#options.folder.state.contributed) || isBehind(this.#skipped);
  }

  /** Waits for an aggregation, or until a round is given up or it is time to look. */
  async #listen(timeoutMs = LOOK_MS): Promise<void> {
    if (this.#isOutdated) return;
    const { client, report, signal } = this.#options;
    report.tell({ event: 'waiting', for: 'aggregation' });
    const wait = linkSignals(signal);
    this.#wake = () => wait.abort();
    try {
      // A stream that begins tells the present one again; then the next step finds nothing to do and comes back here.
      this.#told = await client.queue.get({ signal: wait.signal, timeoutMs });
    } catch (error) {
      signal.throwIfAborted();
      if (wait.signal.aborted) return;
      if (!isCambiumError(error) || error.code !== 'timeout') throw error;
      this.#isWorthTraining = true;
    } finally {
      wait.unlink();
    }
  }

  async #contribute(place: Place): Promise<void> {
    const { policy, retries, retryMs, rounds, report, signal, clock = systemClock } = this.#options;
    const model = await this.#fetchModel(place);
    for (let attempt = 1; ; attempt++) {
      report.tell({ event: 'training', run: place.run, round: place.round, attempt });
      try {
        await this.#train(place, model);
        break;
      } catch (error) {
        if (!isProgramsFault(error)) throw error;
        report.tell({ event: 'failed', code: error.code, message: error.message });
        if (policy === 'stop' || error.code === PROGRAM_MISSING) throw error;
        if (policy === 'retry' && attempt <= retries) {
          await sleep(clock, pauseMs(retryMs, attempt), signal);
          continue;
        }
        // Who asked for one round wants to know that it was none.
        if (rounds === 1) throw error;
        this.#skipped = place;
        report.tell({ event: 'skipped', run: place.run, round: place.round, reason: error.message });
        return;
      }
    }
    await this.#sendMetrics();
    await this.#send(place);
  }

  /** Brings the global model into the program's format; undefined where there is none yet. */
  async #fetchModel({ aggregationId }: Place): Promise<Layout | undefined> {
    const { client, folder, format, jobs, report, signal } = this.#options;
    await folder.clear(folder.global);
    if (aggregationId === null) return undefined;
    const { layout, byteLength } = await client.fileDownload(aggregationId, { to: folder.download, signal });
    if (layout.format === format) await move(folder.download, folder.global);
    else {
      // What bearer servers send tells no weighting, and an object array has a place for one: nobody counts a model's.
      const weighting = layout.weighting ?? 1;
      await jobs.convert({ input: folder.download, output: folder.global, format, weighting }, { signal });
    }
    report.tell({ event: 'model', aggregation: aggregationId, bytes: byteLength, format });
    return layout;
  }

  /** Runs the program once and checks what it wrote; afterwards the update is ready and remembered. */
  async #train(place: Place, model: Layout | undefined): Promise<void> {
    const { folder, jobs, program, report, signal, timeoutMs } = this.#options;
    await folder.clear(folder.update, folder.metrics);
    const facts: ProgramFacts = {
      global: folder.global,
      update: folder.update,
      metrics: folder.metrics,
      round: place.round ?? 0,
      run: place.run,
    };
    const heard = new Map<MetricsMode, unknown>();
    const onLines = (lines: readonly string[]) => {
      const others = lines.filter((line) => {
        const entry = readMetricsLine(line);
        if (entry !== undefined) heard.set(...entry);
        return entry === undefined;
      });
      report.pass(others);
    };
    const onError = report.hasStatus ? (bytes: Uint8Array) => report.forward(bytes) : undefined;
    await runProgram(program, facts, { signal, timeoutMs, onLines, onError });
    const written = await stat(folder.update).catch(() => undefined);
    if (!written?.isFile() || written.size === 0) {
      throw new CambiumError('program-no-update', `the program wrote nothing to ${folder.update}`);
    }
    const { layout, nonFinite } = await jobs.examine(folder.update, { checkFinite: true, signal });
    const [first] = nonFinite;
    if (first !== undefined) {
      throw new AggregationError(
        'non-finite',
        `${folder.update}: tensor ${first.tensor} holds NaN or infinity, first at element ${first.index}`,
        { nonFinite },
      );
    }
    if (model !== undefined) await requireLike(model, layout, 'the update');
    await this.#makeReady(layout);
    const metrics: Metrics = new Map([...heard, ...(await readMetricsFile(folder.metrics))]);
    await this.#keep(place, metrics);
  }

  /** Gives the update the format that the server's generation takes, and a weighting. */
  async #makeReady(layout: Layout): Promise<void> {
    const { client, folder, jobs, signal, weighting } = this.#options;
    const { generation } = client;
    if (layout.weighting === null && weighting === undefined) {
      throw new AggregationError(
        'weighting-missing',
        `${folder.update} has no weighting: write one, or give --weighting with the number of samples`,
      );
    }
    const wanted =
      generation === 'cambium' ? layout.format : generation === 'bearer' ? 'npz' : ('npy-object' as const);
    // A plain array has no room for a weighting.
    const format = wanted === 'npy' ? 'npy-object' : wanted;
    if (layout.format === format && layout.weighting !== null) return move(folder.update, folder.ready);
    const names = format === 'npy-object' || generation !== 'cambium' ? 'drop' : 'keep';
    await jobs.convert(
      {
        input: folder.update,
        output: folder.ready,
        format,
        names,
        ...(layout.weighting === null && { weighting }),
      },
      { signal },
    );
  }

  /** From here on the work of this round cannot be lost. */
  async #keep(pending: Place, metrics: Metrics): Promise<void> {
    const { folder, report } = this.#options;
    const { aggregationId } = pending;
    await guardFile(folder.ready, 'write', () => syncPath(folder.ready));
    if (aggregationId === null) {
      for (const mode of metrics.keys()) report.tell({ event: 'metrics', mode, aggregation: null });
      return folder.remember({ pending });
    }
    const waiting = [...metrics].map(([mode, data]) => ({ aggregationId, mode, data }));
    await folder.remember({ pending, metrics: [...folder.state.metrics, ...waiting] });
  }

  /** Sends what an earlier step, or process, has kept. */
  async #sendKept(place: Place): Promise<void> {
    const { folder, report } = this.#options;
    try {
      await this.#send(place);
    } catch (error) {
      if (!(error instanceof FormatError || error instanceof FileError)) throw error;
      // Gone, or no longer what it was: the round is trained again.
      await folder.remember({ pending: null });
      report.tell({ event: 'failed', code: error.code, message: error.message });
    }
  }

  async #send(place: Place): Promise<void> {
    const { client, folder, report, signal } = this.#options;
    const { run, round } = place;
    try {
      if (client.runNumber !== null && client.runNumber !== run) {
        throw new RefusedError('round-closed', `run ${run} is over`, 409);
      }
      const receipt = await client.fileUpload(folder.ready, { signal, ...(round !== null && { round }) });
      await folder.remember({ pending: null, contributed: place });
      await folder.clear(folder.ready);
      const { fileId: file, weighting } = receipt;
      report.tell({ event: 'uploaded', run, round, file, weighting });
      this.#contributions++;
    } catch (error) {
      if (!(error instanceof RefusedError)) {
        // Such a server would count it twice: it counts as sent.
        if (isCambiumError(error) && error.code === 'upload-unconfirmed') {
          await folder.remember({ pending: null, contributed: place });
          report.tell({ event: 'failed', code: error.code, message: error.message });
          return;
        }
        throw error;
      }
      if (error.code === 'run-paused') return; // it is sent when the run goes on
      if (!TOO_LATE.has(error.code) && error.status !== 422) throw error;
      const hasOne = error.code === 'update-exists';
      await folder.remember({ pending: null, ...(hasOne && { contributed: place }) });
      if (!hasOne) this.#skipped = place;
      report.tell({ event: 'skipped', run, round, reason: error.message });
      if (this.#options.rounds === 1 && error.status === 422) throw error;
    }
  }

  async #sendMetrics(): Promise<void> {
    const { client, folder, report, signal } = this.#options;
    for (;;) {
      const [first, ...rest] = folder.state.metrics;
      if (first === undefined) return;
      const { aggregationId: aggregation, mode, data } = first;
      try {
        await client.sendPerformanceMetrics(mode, data, aggregation, { signal });
        report.tell({ event: 'metrics', mode, aggregation });
      } catch (error) {
        // What the server does not want is no reason to end; what did not reach it is kept.
        if (!(error instanceof RefusedError) || error.status === 401) throw error;
        report.tell({ event: 'failed', code: error.code, message: error.message });
      }
      await folder.remember({ metrics: rest });
    }
  }
}

function brokerMissing(): CambiumError {
  return new CambiumError(
    'broker-missing',
    'nothing says where the RabbitMQ is that tells of aggregations, and this server tells of them nowhere else:' +
      ' give --broker amqps://HOST:5671 (or broker_url in the credentials), or --once for a first update alone',
  );
}

async function move(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (cause) {
    throw fileError(cause, to, 'write');
  }
}

/** Whether the program is to blame, which might do better another time. */
function isProgramsFault(error: unknown): error is CambiumError {
  if (!isCambiumError(error)) return false;
  if (error instanceof FormatError || error instanceof AggregationError) return true;
  return error.code.startsWith('program-') || error.code === 'metrics-invalid';
}
