/**
 * The demo as an operator sees it: a tree, a branch, its leaves, a run. All of it goes through the server's API, with
 * nothing that a program elsewhere could not do; the leaves are processes of their own.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { downloadBytes } from '../../client/download.ts';
import { InternalError, ProtocolError } from '../../errors.ts';
import { eventNotices } from '../../transport/events.ts';
import type { Http } from '../../transport/http.ts';
import {
  type BranchBody,
  type CredentialsBody,
  type MetricsBody,
  type MetricsMode,
  paths,
  type RoundBody,
  type RunStatus,
  type TreeBody,
} from '../../wire/cambium.ts';
import { list } from '../operator.ts';
import { TrainingProcess } from './processes.ts';
import { pool, type Split } from './shards.ts';

export interface FederationOptions {
  /** Speaks with the server as an operator. */
  readonly http: Http;
  readonly split: Split;
  readonly rounds: number;
  readonly seed: number;
  /** Where the files of the leaves and the global models go. */
  readonly folder: string;
  readonly onRound: (report: RoundReport) => void;
  readonly signal: AbortSignal;
}

/** What came of one round. Accuracies are parts of the held-out digits, in [0, 1]. */
export interface RoundReport {
  readonly round: number;
  readonly updates: number;
  readonly target: number;
  readonly totalWeighting: number;
  readonly aggregationSeconds: number;
  readonly aggregationId: string;
  /** Where the global model was written. */
  readonly model: string;
  /** Of the global model. */
  readonly accuracy: number;
  /** What each leaf reaches alone with as many epochs. */
  readonly leaves: readonly LeafReport[];
  /** Of a model trained with as many epochs on all data in one place. */
  readonly centralised: number;
}

interface LeafReport {
  readonly name: string;
  readonly samples: number;
  readonly accuracy: number;
}

interface Leaf {
  readonly id: string;
  readonly name: string;
  readonly samples: number;
}

/**
 * Runs a federation, round by round. Whatever ends it, the processes are gone afterwards.
 *
 * @returns the id of the branch
 * @throws what made a leaf, the training in one place or an aggregation fail; the reason of the signal
 */
export async function federate(options: FederationOptions): Promise<string> {
  const { http, split, rounds, seed, folder, signal } = options;
  signal.throwIfAborted();
  const processes: TrainingProcess[] = [];
  const startProcess = (name: string) => {
    const started = new TrainingProcess(name);
    processes.push(started);
    return started;
  };
  const failure = new Trap(signal);
  try {
    // They load what they train with while the server is asked.
    const leafProcesses = split.shards.map(({ name }) => startProcess(name));
    const central = startProcess('training in one place');

    await mkdir(join(folder, 'global'), { recursive: true });
    const { branch, leaves } = await setUp(options);
    await changeRun(http, branch.id, 'start', signal);
    failure.watch(http, branch.id);

    const { heldOut } = split;
    for (const [i, { name, samples }] of split.shards.entries()) {
      const leafFolder = join(folder, 'leaves', name);
      leafProcesses[i]!.send({
        type: 'leaf',
        stream: i + 1,
        folder: leafFolder,
        seed,
        rounds,
        samples,
        heldOut,
      });
    }
    central.send({ type: 'central', seed, rounds, samples: pool(split.shards), heldOut });

    for (let round = 1; round <= rounds; round++) {
      const [last] = await failure.guard(
        Promise.all([central.next(), ...leafProcesses.map((leafProcess) => leafProcess.next())]),
      );
      if (last?.type !== 'central-round') {
        throw new InternalError('internal-process', 'a process of the demo reported out of turn');
      }
      options.onRound(await failure.guard(report(options, branch, leaves, round, last.accuracy)));
    }
    await changeRun(http, branch.id, 'stop', signal);
    return branch.id;
  } finally {
    failure.close();
    await Promise.all(processes.map((process) => process.stop()));
  }
}

/** Creates tree, branch and leaves, and puts each leaf's credentials into its folder. */
async function setUp({ http, split, folder, signal }: FederationOptions): Promise<{
  readonly branch: BranchBody;
  readonly leaves: readonly Leaf[];
}> {
  const post = (target: string, json: unknown) => http.json({ method: 'POST', target, json, signal });
  const tree = (await post(paths.trees(), { name: 'demo' })) as TreeBody;
  const target = split.shards.length;
  const branch = (await post(paths.branches(), {
    name: 'digits',
    tree_id: tree.id,
    aggregation_target: target,
  })) as BranchBody;
  const leaves: Leaf[] = [];
  for (const { name, samples } of split.shards) {
    const credentials = (await post(paths.leaves(), { name, branch_id: branch.id })) as CredentialsBody;
    const leafFolder = join(folder, 'leaves', name);
    await mkdir(leafFolder, { recursive: true });
    const text = `${JSON.stringify(credentials, undefined, 2)}\n`;
    await writeFile(join(leafFolder, 'credentials.json'), text, { flag: 'wx', mode: 0o600 });
    leaves.push({ id: credentials.leaf_id, name, samples: samples.labels.length });
  }
  return { branch, leaves };
}

async function changeRun(
  http: Http,
  branch: string,
  run_status: RunStatus,
  signal: AbortSignal,
): Promise<void> {
  await http.json({ method: 'POST', target: paths.run(branch), json: { run_status }, signal });
}

/** Asks the server for what it knows of a round that all leaves have finished. */
async function report(
  { http, folder, signal }: FederationOptions,
  branch: BranchBody,
  leaves: readonly Leaf[],
  number: number,
  centralised: number,
): Promise<RoundReport> {
  const found = await list<RoundBody>(http, paths.rounds(branch.id), { signal });
  const round = found.find((candidate) => candidate.round === number);
  const id = round?.aggregation_id;
  if (round?.status !== 'done' || id === undefined || id === null) {
    throw new ProtocolError(
      'protocol-round',
      `the leaves have round ${number}, the server says ${round?.status}`,
    );
  }
  const model = join(folder, 'global', `round-${String(number).padStart(2, '0')}.npy`);
  const { bytes } = await downloadBytes(http, id, undefined, { signal });
  await writeFile(model, bytes);
  const metrics = await list<MetricsBody>(http, paths.branchMetrics(branch.id), { signal });
  const accuracies = leaves.map((leaf) => accuracyOf(metrics, id, leaf, 'test'));
  if (accuracies.some((accuracy) => accuracy !== accuracies[0])) {
    throw new InternalError(
      'internal-metrics',
      `round ${number}: the leaves measure ${accuracies.join(', ')} of one global model`,
    );
  }
  return {
    round: number,
    updates: round.updates.length,
    target: branch.aggregation_target,
    totalWeighting: round.total_weighting ?? 0,
    aggregationSeconds: round.aggregation_seconds ?? 0,
    aggregationId: id,
    model,
    accuracy: accuracies[0]!,
    leaves: leaves.map((leaf) => ({
      name: leaf.name,
      samples: leaf.samples,
      accuracy: accuracyOf(metrics, id, leaf, 'non-federated'),
    })),
    centralised,
  };
}

function accuracyOf(
  metrics: readonly MetricsBody[],
  aggregationId: string,
  leaf: Leaf,
  mode: MetricsMode,
): number {
  const found = metrics.find(
    (entry) => entry.aggregation_id === aggregationId && entry.leaf_id === leaf.id && entry.mode === mode,
  );
  const accuracy = (found?.data as { accuracy?: unknown } | undefined)?.accuracy;
  if (typeof accuracy !== 'number') {
    throw new ProtocolError('protocol-metrics', `the server has no ${mode} accuracy of ${leaf.name}`);
  }
  return accuracy;
}

/** Turns what can go wrong beside the awaited work into a rejection of it: an interrupt, a failed aggregation. */
class Trap {
  readonly #failed: Promise<never>;
  readonly #signal: AbortSignal;
  readonly #closing = new AbortController();
  #fail: (error: unknown) => void = () => {};
  readonly #onAbort = () => this.#fail(this.#signal.reason);

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    this.#failed = new Promise<never>((_, reject) => {
      this.#fail = reject;
    });
    this.#failed.catch(() => {}); // told to whoever waits, or to nobody
    signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  guard<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#failed]);
  }

  /** Leaves would wait for the notice of a failed round for ever. Never rejects. */
  async watch(http: Http, branchId: string): Promise<void> {
    try {
      for await (const { type, data } of eventNotices(http, paths.watch(branchId)).open({
        signal: this.#closing.signal,
      })) {
        if (type !== 'round') continue;
        const { status, round, failure } = JSON.parse(data) as RoundBody;
        if (status !== 'failed') continue;
        this.#fail(
          new InternalError(
            'internal-round',
            `the aggregation of round ${round} failed: ${failure?.message ?? 'for an unknown reason'}`,
          ),
        );
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  close(): void {
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#closing.abort();
  }
}
