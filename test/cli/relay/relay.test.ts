/**
 * The relay between two real servers, stopped at every step of its way: with each request that it makes it dies before it has
 * the answer, and with each that changes something also before the server has it; another one goes on. Nothing is lost and
 * nothing counts twice.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { LeafAbove } from '../../../src/cli/relay/above.ts';
import { BranchBelow } from '../../../src/cli/relay/below.ts';
import { RelayFolder } from '../../../src/cli/relay/folder.ts';
import { Relay, type RelayOptions } from '../../../src/cli/relay/relay.ts';
import type { RelayEvent } from '../../../src/cli/relay/report.ts';
import { encodeUpdate } from '../../../src/client/weights.ts';
import { readTensors } from '../../../src/formats/read.ts';
import type { Jobs } from '../../../src/node/jobs.ts';
import { startJobs } from '../../../src/node/workers.ts';
import { realTimers } from '../../../src/server/timers.ts';
import { memorySource } from '../../../src/tensor/bytes.ts';
import { tensorOf } from '../../../src/tensor/tensor.ts';
import type { Clock } from '../../../src/transport/clock.ts';
import { Http } from '../../../src/transport/http.ts';
import {
  type AggregationBody,
  type CredentialsBody,
  type PolicyBody,
  paths,
  type RoundBody,
  type RunBody,
} from '../../../src/wire/cambium.ts';
import { ManualClock } from '../../helpers/clock.ts';
import { failsWith } from '../../helpers/errors.ts';
import { EventStream, Harness } from '../../server/harness.ts';

const test = suite('relay');
let jobs: Jobs;
let above: Harness;
let below: Harness;
let folder: string;
let weighting = 0;

test.before(async () => {
  jobs = startJobs({ workerUrl: new URL('../../../dist/worker.js', import.meta.url) });
  above = await new Harness().start({ jobs, timers: realTimers });
  below = await new Harness().start({ jobs, timers: realTimers });
});
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), 'cambium-relay-'));
});
test.after.each(() => rmSync(folder, { recursive: true, force: true }));
test.after(async () => {
  await above.end();
  await below.end();
  await jobs.close();
});

interface Branch {
  readonly id: string;
  readonly leaves: readonly CredentialsBody[];
}

/** A branch above whose first leaf is the relay, and one below with two leaves; both have a run. */
async function levels(policy: Partial<PolicyBody> = {}): Promise<{ top: Branch; low: Branch }> {
  const top = await above.branch(2);
  await above.operate('PATCH', paths.branch(top.id), { partial_sums: true, ...policy });
  const low = await below.branch(2);
  await below.operate('PATCH', paths.branch(low.id), { upstream: true });
  return { top, low };
}

const update = (weight: number, ...values: number[]) =>
  encodeUpdate({ weighting: weight, tensors: [tensorOf(Float32Array.from(values))] });

async function send(harness: Harness, leaf: CredentialsBody, bytes: Uint8Array): Promise<void> {
  const { status, body } = await harness.upload(leaf, bytes);
  assert.is(status, 201, JSON.stringify(body));
}

/** Fresh updates of both leaves below; the total weighting. */
async function contribute({ leaves }: Branch): Promise<number> {
  const own = [weighting + 1, weighting + 2];
  weighting += 2;
  for (const [i, leaf] of leaves.entries())
    await send(below, leaf, await update(own[i]! + 0.25, i, weighting));
  return own[0]! + own[1]! + 0.5;
}

async function rounds(harness: Harness, { id }: Branch): Promise<RoundBody[]> {
  const list = await harness.operate<{ items: RoundBody[] }>('GET', paths.rounds(id));
  return list.body.items.reverse();
}

/** The round when it is as it should be, of the newest two. */
async function until(
  harness: Harness,
  branch: Branch,
  number: number,
  isIt: (round: RoundBody) => boolean,
): Promise<RoundBody> {
  const url = new URL(paths.watch(branch.id), harness.server.url);
  const stream = await EventStream.open(url, { authorization: `Bearer ${harness.operator.token}` });
  try {
    for (;;) {
      const round = JSON.parse((await stream.event())!.data!) as RoundBody;
      if (round.round === number && isIt(round)) return round;
    }
  } finally {
    await stream.close();
  }
}

const isDone = ({ status }: RoundBody) => status === 'done';

async function fileOf(harness: Harness, id: string): Promise<Uint8Array> {
  const { body } = await harness.operate<AggregationBody>('GET', paths.aggregation(id));
  return new Uint8Array(await (await fetch(body.download_url)).arrayBuffer());
}

class Death extends Error {}

/** A relay in this process; it may die with its n-th request. */
class Running {
  readonly events: RelayEvent[] = [];
  readonly end = new AbortController();
  readonly ended: Promise<unknown>;
  /** Requests so far; when it dies before they are made, those that change something. */
  requests = 0;
  constructor(
    top: Branch,
    low: Branch,
    options: { dieAt?: number; after?: boolean; follow?: boolean; rounds?: number; clock?: Clock } = {},
  ) {
    const { dieAt = Infinity, after = false, follow = false, rounds: most = Infinity, clock } = options;
    const { signal } = this.end;
    const mortal: typeof globalThis.fetch = async (input, init) => {
      // Streams of notices are begun whenever; they change nothing.
      if (/\/(watch|notices)$/.test(new URL(String(input instanceof Request ? input.url : input)).pathname))
        return fetch(input, init);
      const isChange = (init?.method ?? (input as Request).method) !== 'GET';
      if (after || isChange) this.requests++;
      const isLast = this.requests === dieAt && (after || isChange);
      const die = () => this.end.abort(new Death());
      if (isLast && !after) die();
      signal.throwIfAborted();
      // What the server is told, it is told: an abort does not take it back.
      const response = await fetch(input, isLast ? { ...init, signal: null } : init);
      if (!isLast) return response;
      await response.arrayBuffer();
      die();
      throw signal.reason;
    };
    this.ended = this.#run(top, low, mortal, { follow, rounds: most, clock }).catch((error: unknown) => {
      if (!signal.aborted) throw error;
    });
  }

  async #run(
    top: Branch,
    low: Branch,
    mortal: typeof fetch,
    options: Pick<RelayOptions, 'follow' | 'rounds' | 'clock'>,
  ): Promise<void> {
    const server = below.server.url;
    const authorization = `Bearer ${below.operator.token}`;
    const leaf = new LeafAbove(top.leaves[0]!, { fetch: mortal });
    try {
      await new Relay({
        above: leaf,
        below: new BranchBelow(new Http({ server, authorization, fetch: mortal }), low.id),
        folder: await RelayFolder.open(folder),
        tell: (event) => void this.events.push(event),
        ...options,
        signal: this.end.signal,
      }).run();
    } finally {
      await leaf.client.close();
    }
  }

  async stop(): Promise<void> {
    this.end.abort(new Death());
    await this.ended;
  }

  /** Ends when it has told of such an event. */
  async told<T extends RelayEvent['event']>(event: T): Promise<RelayEvent & { event: T }> {
    for (;;) {
      const found = this.events.find((each) => each.event === event);
      if (found !== undefined) return found as RelayEvent & { event: T }; // its tag says so
      await Promise.race([this.ended.then(() => assert.unreachable('it ended')), new Promise(setImmediate)]);
    }
  }
}

test('a relay that dies with any of its requests: the next one goes on, and each sum counts once', async () => {
  const { top, low } = await levels();
  let deaths = 0;
  let number = 0;
  for (const after of [false, true]) {
    for (let dieAt = 1; ; dieAt++) {
      number++;
      const total = await contribute(low);
      const first = new Running(top, low, { dieAt, after, rounds: 1 });
      const isIn = ({ updates }: RoundBody) => updates.length > 0;
      // The other leaf above comes only when the sum is there, so a second one would be seen.
      const others = (async () => {
        await until(above, top, number, isIn);
        await send(above, top.leaves[1]!, await update(0.5, 3, number));
      })();
      await first.ended;
      const second = new Running(top, low);
      await others;
      const done = await until(below, low, number, isDone);
      await second.stop();
      const wide = await until(above, top, number, isDone);
      assert.is(wide.updates.length, 2);
      assert.is(wide.total_weighting, total + 0.5);
      assert.is(done.total_weighting, total + 0.5);
      const file = await fileOf(above, wide.aggregation_id!);
      assert.equal(await fileOf(below, done.aggregation_id!), file);
      assert.is(done.sum!.sha256, wide.updates.find(({ sum_leaves }) => sum_leaves === 2)?.sha256);
      if (!first.end.signal.aborted) break;
      deaths++;
    }
  }
  assert.ok(deaths > 20, `${deaths} deaths`);
  const open = (await rounds(above, top)).at(-1);
  assert.equal([open?.round, open?.updates.length], [number + 1, 0]);
});

test('two rounds with the very same sum are two contributions', async () => {
  const { top, low } = await levels();
  const relay = new Running(top, low);
  for (const number of [1, 2]) {
    for (const leaf of low.leaves) await send(below, leaf, await update(1.5, 1, 2));
    await until(above, top, number, ({ updates }) => updates.length === 1);
    await send(above, top.leaves[1]!, await update(1, number, number));
    await until(below, low, number, isDone);
    // Like leaves that train, these fetch what they train on.
    for (const leaf of low.leaves) await fetched(leaf);
  }
  await relay.stop();
  const [a, b] = await rounds(above, top);
  assert.is(
    a!.updates.find(({ sum_leaves }) => sum_leaves === 2)?.sha256,
    b!.updates.find(({ sum_leaves }) => sum_leaves === 2)?.sha256,
  );
});

async function fetched(leaf: CredentialsBody): Promise<void> {
  const client = new LeafAbove(leaf).client;
  await client.fileDownload((await client.getRunDetails()).aggregationId!);
  await client.close();
}

test('a round above that is discarded: the sum goes into the next one', async () => {
  const { top, low } = await levels();
  const relay = new Running(top, low);
  await contribute(low);
  const first = await until(above, top, 1, ({ updates }) => updates.length === 1);
  await above.operate('POST', paths.roundDiscard(first.id));
  const second = await until(above, top, 2, ({ updates }) => updates.length === 1);
  assert.is(second.updates[0]?.sha256, first.updates[0]?.sha256);
  await send(above, top.leaves[1]!, await update(1, 1, 1));
  await until(below, low, 1, isDone);
  await relay.stop();
});

test('a failed round above that is discarded: the notice alone brings the sum into the next one', async () => {
  // A round above that is one leaf short fails by the clock; the relay's own clock stands, so it never looks by itself.
  const { top, low } = await levels({ minimum: 2, deadline_ms: 20 });
  const relay = new Running(top, low, { clock: new ManualClock() });
  await contribute(low);
  const first = await until(above, top, 1, ({ updates }) => updates.length === 1);
  above.now += 20;
  await until(above, top, 1, ({ status }) => status === 'failed');
  await above.operate('POST', paths.roundDiscard(first.id));
  const second = await until(above, top, 2, ({ updates }) => updates.length === 1);
  assert.is(second.updates[0]?.sha256, first.updates[0]?.sha256);
  await relay.stop();
});

test('a sum that an operator above has excluded: what the others made comes down', async () => {
  const { top, low } = await levels();
  const relay = new Running(top, low);
  await contribute(low);
  const { id } = await until(above, top, 1, ({ updates }) => updates.length === 1);
  await above.operate('POST', paths.roundExclude(id), { leaf_id: top.leaves[0]!.id });
  await send(above, top.leaves[1]!, await update(4, 8, 9));
  const { left_out, weighting: total } = await relay.told('handed-down');
  await relay.stop();
  assert.equal([left_out, total], ['excluded', 4]);
  assert.is((await until(below, low, 1, isDone)).total_weighting, 4);
});

test('a sum that comes too late is left out, and the leaves below go on with what the others made', async () => {
  const { top, low } = await levels({ aggregation_target: 1, late: 'refuse' });
  await contribute(low);
  await send(above, top.leaves[1]!, await update(4, 8, 9));
  const wide = await until(above, top, 1, isDone);
  const relay = new Running(top, low);
  const { left_out, aggregation } = await relay.told('handed-down');
  await relay.stop();
  assert.equal([left_out, aggregation], ['update-late', wide.aggregation_id]);
  const done = await until(below, low, 1, isDone);
  assert.equal(await fileOf(below, done.aggregation_id!), await fileOf(above, wide.aggregation_id!));
  assert.is(done.total_weighting, 4);
});

test('a branch above that takes no sums: it says so and ends, and the round below waits', async () => {
  const { top, low } = await levels({ partial_sums: false });
  await contribute(low);
  await failsWith('weights-partial-sum', () => new Running(top, low).ended);
  const round = await until(below, low, 1, ({ status }) => status === 'summed');
  await above.operate('PATCH', paths.branch(top.id), { partial_sums: true, aggregation_target: 1 });
  const relay = new Running(top, low, { rounds: 1 });
  await relay.ended;
  assert.equal(
    relay.events.map(({ event }) => event).filter((event) => event !== 'waiting'),
    ['sum', 'uploaded', 'handed-down', 'done'],
  );
  assert.is((await until(below, low, 1, isDone)).sum?.sha256, round.sum?.sha256);
});

test('--follow: the run below begins with that above, with its model, and anew', async () => {
  const { top, low } = await levels({ aggregation_target: 1 });
  await below.run(low.id, 'stop');
  await above.run(top.id, 'stop');
  const model = await update(1, 5, 6);
  const startAbove = () =>
    above.call<RunBody>('POST', paths.runModel(top.id), {
      headers: { authorization: `Bearer ${above.operator.token}` },
      body: model as Uint8Array<ArrayBuffer>,
    });
  assert.is((await startAbove()).body.run_number, 2);
  const relay = new Running(top, low, { follow: true });
  const started = await relay.told('started');
  assert.equal([started.run, started.above], [2, 2]);
  const { body } = await below.operate<RunBody>('GET', paths.run(low.id));
  assert.equal([body.run_status, body.run_number], ['start', 2]);
  const { tensors } = await readTensors(memorySource(await fileOf(below, body.aggregation_id!)));
  assert.equal([...new Float32Array(tensors[0]!.data.slice().buffer)], [5, 6]);
  // Without the run that it belonged to, a sum goes nowhere.
  await relay.stop();
  await above.run(top.id, 'stop');
  await contribute(low);
  await until(below, low, 1, ({ status, run_number }) => status === 'summed' && run_number === 2);
  await startAbove();
  const plain = new Running(top, low);
  const { reason } = await plain.told('waiting');
  assert.match(reason!, /run 2 below belongs to run 2 above, which is over/);
  await plain.stop();
  const again = new Running(top, low, { follow: true });
  const second = await again.told('started');
  await again.stop();
  assert.equal([second.run, second.above], [3, 3]);
  assert.equal(
    (await rounds(above, top)).flatMap(({ updates }) => updates),
    [],
  );
  const statuses = (await rounds(below, low))
    .filter(({ run_number }) => run_number === 2)
    .map(({ status }) => status);
  assert.equal(statuses, ['done', 'discarded', 'discarded']);
});

test('a damaged sum on the way is fetched again', async () => {
  const { top, low } = await levels({ aggregation_target: 1 });
  await contribute(low);
  await until(below, low, 1, ({ status }) => status === 'summed');
  writeFileSync(join(folder, 'sum.partial.safetensors'), 'half a file');
  const relay = new Running(top, low, { rounds: 1 });
  await relay.ended;
  const done = await until(below, low, 1, isDone);
  const [own] = (await rounds(above, top))[0]!.updates;
  assert.is(own?.sha256, done.sum?.sha256);
});

test.run();
