/**
 * The state machine as a table: every event in every state of a round, what becomes of the round, what the one who asked
 * is told and what the leaves are told. Two leaves of three make the target, one the minimum.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { InternalError } from '../../../src/errors.ts';
import { closeNow, excludeLeaf, giveUpRound, retryRound } from '../../../src/server/domain/correcting.ts';
import { type Leaf, revokeLeaf } from '../../../src/server/domain/leaves.ts';
import { changeRun, getRun } from '../../../src/server/domain/runs.ts';
import type { NewBranch } from '../../../src/server/domain/trees.ts';
import { handDown } from '../../../src/server/domain/upstream.ts';
import { toyFile } from '../harness.ts';
import { codeOf, Rig } from './rig.ts';

const DEADLINE = 600_000;

interface Stage {
  readonly rig: Rig;
  readonly branch: string;
  /** The round that the event is about, by number. */
  readonly number: number;
  readonly leaves: readonly Leaf[];
  /** Lets the aggregation that waits go on. */
  release(): void;
}

/** What the policy of the branch says besides, for a state that others do not come to. */
const POLICIES: Partial<Record<State, Partial<NewBranch>>> = {
  summed: { upstream: true, upstream_timeout_ms: DEADLINE },
};

/** How a round 1 gets into each state. The second member of `STATES` has one update, of leaf 0. */
const STATES = {
  empty: async () => {},
  begun: async ({ rig, leaves }) => {
    await rig.upload(leaves[0]!, toyFile(1));
  },
  paused: async ({ rig, branch, leaves }) => {
    await rig.upload(leaves[0]!, toyFile(1));
    await changeRun(rig.domain, branch, 'pause');
  },
  aggregating: async ({ rig, leaves }) => {
    await rig.upload(leaves[0]!, toyFile(1));
    await rig.upload(leaves[1]!, toyFile(2));
  },
  summed: async ({ rig, branch, leaves, release }) => {
    release();
    await rig.upload(leaves[0]!, toyFile(1));
    await rig.upload(leaves[1]!, toyFile(2));
    await rig.settled(branch, 1);
  },
  done: async ({ rig, branch, leaves, release }) => {
    release();
    await rig.upload(leaves[0]!, toyFile(1));
    await rig.upload(leaves[1]!, toyFile(2));
    await rig.settled(branch, 1);
  },
  failed: async ({ rig, branch, leaves, release }) => {
    rig.toys.failure = new InternalError('internal-worker', 'a worker thread ended with code 9');
    release();
    await rig.upload(leaves[0]!, toyFile(1));
    await rig.upload(leaves[1]!, toyFile(2));
    await rig.settled(branch, 1);
  },
  stopped: async ({ rig, branch, leaves }) => {
    await rig.upload(leaves[0]!, toyFile(1));
    await changeRun(rig.domain, branch, 'stop');
  },
} as const satisfies Record<string, (stage: Stage) => Promise<void>>;

type State = keyof typeof STATES;

const roundId = async ({ rig, branch, number }: Stage) => (await rig.round(branch, number)).id;
const uploaded = ({ round, duplicate }: { round: number; duplicate: boolean }) =>
  `${duplicate ? 'known' : 'in'} ${round}`;

/** Each answers in short what the one who asked is told. */
const EVENTS = {
  upload: async ({ rig, leaves }) => uploaded(await rig.upload(leaves[2]!, toyFile(4))),
  duplicate: async ({ rig, leaves }) => uploaded(await rig.upload(leaves[0]!, toyFile(1))),
  late: async ({ rig, leaves }) => uploaded(await rig.upload(leaves[2]!, toyFile(4), { round: 1 })),
  replace: async ({ rig, leaves }) => uploaded(await rig.upload(leaves[0]!, toyFile(8))),
  pause: async ({ rig, branch }) => (await changeRun(rig.domain, branch, 'pause')).run_status,
  start: async ({ rig, branch }) => {
    const { run_status, run_number } = await changeRun(rig.domain, branch, 'start');
    return `${run_status} ${run_number}`;
  },
  stop: async ({ rig, branch }) => (await changeRun(rig.domain, branch, 'stop')).run_status,
  deadline: async ({ rig, branch }) => {
    await rig.quiet();
    const waits = rig.clock.waiting;
    rig.clock.pass(DEADLINE);
    await rig.quiet();
    return `${waits} timer, round ${(await getRun(rig.domain, branch)).round}`;
  },
  target: async ({ rig, leaves }) => {
    await rig.upload(leaves[1]!, toyFile(2));
    return uploaded(await rig.upload(leaves[2]!, toyFile(4)));
  },
  revoke: async ({ rig, leaves }) => {
    await revokeLeaf(rig.domain, leaves[2]!.id);
    return uploaded(await rig.upload(leaves[2]!, toyFile(4)));
  },
  close: async (stage) => (await closeNow(stage.rig.domain, await roundId(stage))).status,
  discard: async (stage) => (await giveUpRound(stage.rig.domain, await roundId(stage))).status,
  retry: async (stage) => (await retryRound(stage.rig.domain, await roundId(stage))).status,
  exclude: async (stage) => {
    const { status, excluded, updates } = await excludeLeaf(
      stage.rig.domain,
      await roundId(stage),
      stage.leaves[0]!.id,
    );
    return `${status} without ${excluded.length}, ${updates.filter(({ left_out }) => left_out === null).length} left`;
  },
  crash: async ({ rig, leaves, release }) => {
    rig.toys.failure = new InternalError('internal-worker', 'a worker thread ended with code 9');
    release();
    return uploaded(await rig.upload(leaves[2]!, toyFile(4)));
  },
  'hand down': async (stage) => {
    const spooled = await stage.rig.spool(toyFile(9));
    return (await handDown(stage.rig.domain, await roundId(stage), spooled)).status;
  },
  kill: async ({ rig, branch }) => {
    await rig.restart();
    return (await getRun(rig.domain, branch)).run_status;
  },
} as const satisfies Record<string, (stage: Stage) => Promise<string>>;

type Event = keyof typeof EVENTS;

/**
 * By event and state: what is told, then what has become of the rounds (oldest first, with the updates that count), then
 * what the leaves hear. All of it after the aggregations that could be done were done.
 */
const EXPECTED: Readonly<Record<Event, Readonly<Record<State, string>>>> = {
  upload: {
    empty: 'in 1 | 1.1 open 1 | nothing',
    begun: 'in 1 | 1.1 done 2, 1.2 open 0 | aggregation 1',
    paused: 'run-paused | 1.1 open 1 | nothing',
    aggregating: 'in 2 | 1.1 done 2, 1.2 open 1 | aggregation 1',
    summed: 'in 2 | 1.1 summed 2, 1.2 open 1 | nothing',
    done: 'in 2 | 1.1 done 2, 1.2 open 1 | nothing',
    failed: 'in 2 | 1.1 failed 2, 1.2 open 1 | nothing',
    stopped: 'run-stopped | 1.1 discarded 1 | nothing',
  },
  duplicate: {
    empty: 'in 1 | 1.1 open 1 | nothing',
    begun: 'known 1 | 1.1 open 1 | nothing',
    paused: 'run-paused | 1.1 open 1 | nothing',
    aggregating: 'known 1 | 1.1 done 2, 1.2 open 0 | aggregation 1',
    summed: 'known 1 | 1.1 summed 2, 1.2 open 0 | nothing',
    done: 'known 1 | 1.1 done 2, 1.2 open 0 | nothing',
    failed: 'known 1 | 1.1 failed 2, 1.2 open 0 | nothing',
    stopped: 'run-stopped | 1.1 discarded 1 | nothing',
  },
  late: {
    empty: 'in 1 | 1.1 open 1 | nothing',
    begun: 'in 1 | 1.1 done 2, 1.2 open 0 | aggregation 1',
    paused: 'run-paused | 1.1 open 1 | nothing',
    aggregating: 'round-closed | 1.1 done 2, 1.2 open 0 | aggregation 1',
    summed: 'round-closed | 1.1 summed 2, 1.2 open 0 | nothing',
    done: 'round-closed | 1.1 done 2, 1.2 open 0 | nothing',
    failed: 'round-closed | 1.1 failed 2, 1.2 open 0 | nothing',
    stopped: 'run-stopped | 1.1 discarded 1 | nothing',
  },
  replace: {
    empty: 'in 1 | 1.1 open 1 | nothing',
    begun: 'in 1 | 1.1 open 1 | nothing',
    paused: 'run-paused | 1.1 open 1 | nothing',
    aggregating: 'in 2 | 1.1 done 2, 1.2 open 1 | aggregation 1',
    summed: 'in 2 | 1.1 summed 2, 1.2 open 1 | nothing',
    done: 'in 2 | 1.1 done 2, 1.2 open 1 | nothing',
    failed: 'in 2 | 1.1 failed 2, 1.2 open 1 | nothing',
    stopped: 'run-stopped | 1.1 discarded 1 | nothing',
  },
  pause: {
    empty: 'pause | 1.1 open 0 | pause 1',
    begun: 'pause | 1.1 open 1 | pause 1',
    paused: 'pause | 1.1 open 1 | nothing',
    aggregating: 'pause | 1.1 done 2, 1.2 open 0 | pause 2, aggregation 1',
    summed: 'pause | 1.1 summed 2, 1.2 open 0 | pause 2',
    done: 'pause | 1.1 done 2, 1.2 open 0 | pause 2',
    failed: 'pause | 1.1 failed 2, 1.2 open 0 | pause 2',
    stopped: 'run-stopped | 1.1 discarded 1 | nothing',
  },
  start: {
    empty: 'start 1 | 1.1 open 0 | nothing',
    begun: 'start 1 | 1.1 open 1 | nothing',
    paused: 'start 1 | 1.1 open 1 | start 1',
    aggregating: 'start 1 | 1.1 done 2, 1.2 open 0 | aggregation 1',
    summed: 'start 1 | 1.1 summed 2, 1.2 open 0 | nothing',
    done: 'start 1 | 1.1 done 2, 1.2 open 0 | nothing',
    failed: 'start 1 | 1.1 failed 2, 1.2 open 0 | nothing',
    stopped: 'start 2 | 1.1 discarded 1, 2.1 open 0 | start 1',
  },
  stop: {
    empty: 'stop | 1.1 discarded 0 | stop 0',
    begun: 'stop | 1.1 discarded 1 | stop 0',
    paused: 'stop | 1.1 discarded 1 | stop 0',
    aggregating: 'stop | 1.1 done 2, 1.2 discarded 0 | stop 0, aggregation 1',
    summed: 'stop | 1.1 summed 2, 1.2 discarded 0 | stop 0',
    done: 'stop | 1.1 done 2, 1.2 discarded 0 | stop 0',
    failed: 'stop | 1.1 failed 2, 1.2 discarded 0 | stop 0',
    stopped: 'stop | 1.1 discarded 1 | nothing',
  },
  deadline: {
    empty: '1 timer, round 1 | 1.1 open 0 | nothing',
    begun: '1 timer, round 2 | 1.1 done 1, 1.2 open 0 | aggregation 1',
    paused: '0 timer, round 1 | 1.1 open 1 | nothing',
    aggregating: '1 timer, round 2 | 1.1 done 2, 1.2 open 0 | aggregation 1',
    summed: '1 timer, round 2 | 1.1 failed 2, 1.2 open 0 | nothing',
    done: '1 timer, round 2 | 1.1 done 2, 1.2 open 0 | nothing',
    failed: '1 timer, round 2 | 1.1 failed 2, 1.2 open 0 | nothing',
    stopped: '0 timer, round 0 | 1.1 discarded 1 | nothing',
  },
  target: {
    empty: 'in 1 | 1.1 done 2, 1.2 open 0 | aggregation 1',
    begun: 'in 2 | 1.1 done 2, 1.2 open 1 | aggregation 1',
    paused: 'run-paused | 1.1 open 1 | nothing',
    aggregating: 'in 2 | 1.1 done 2, 1.2 open 1 | aggregation 1',
    summed: 'in 2 | 1.1 summed 2, 1.2 open 1 | nothing',
    done: 'in 2 | 1.1 done 2, 1.2 open 1 | nothing',
    failed: 'in 2 | 1.1 failed 2, 1.2 open 1 | nothing',
    stopped: 'run-stopped | 1.1 discarded 1 | nothing',
  },
  revoke: {
    empty: 'token-revoked | 1.1 open 0 | nothing',
    begun: 'token-revoked | 1.1 open 1 | nothing',
    paused: 'token-revoked | 1.1 open 1 | nothing',
    aggregating: 'token-revoked | 1.1 done 2, 1.2 open 0 | aggregation 1',
    summed: 'token-revoked | 1.1 summed 2, 1.2 open 0 | nothing',
    done: 'token-revoked | 1.1 done 2, 1.2 open 0 | nothing',
    failed: 'token-revoked | 1.1 failed 2, 1.2 open 0 | nothing',
    stopped: 'token-revoked | 1.1 discarded 1 | nothing',
  },
  close: {
    empty: 'round-minimum | 1.1 open 0 | nothing',
    begun: 'aggregating | 1.1 done 1, 1.2 open 0 | aggregation 1',
    paused: 'aggregating | 1.1 done 1, 1.2 open 0 | aggregation 1',
    aggregating: 'round-not-open | 1.1 done 2, 1.2 open 0 | aggregation 1',
    summed: 'round-not-open | 1.1 summed 2, 1.2 open 0 | nothing',
    done: 'round-not-open | 1.1 done 2, 1.2 open 0 | nothing',
    failed: 'round-not-open | 1.1 failed 2, 1.2 open 0 | nothing',
    stopped: 'round-not-open | 1.1 discarded 1 | nothing',
  },
  discard: {
    empty: 'discarded | 1.1 discarded 0, 1.2 open 0 | start 2',
    begun: 'discarded | 1.1 discarded 1, 1.2 open 0 | start 2',
    paused: 'discarded | 1.1 discarded 1, 1.2 open 0 | pause 2',
    aggregating: 'round-finished | 1.1 done 2, 1.2 open 0 | aggregation 1',
    summed: 'discarded | 1.1 discarded 2, 1.2 open 0 | start 2',
    done: 'round-finished | 1.1 done 2, 1.2 open 0 | nothing',
    failed: 'discarded | 1.1 discarded 2, 1.2 open 0 | start 2',
    stopped: 'round-finished | 1.1 discarded 1 | nothing',
  },
  retry: {
    empty: 'round-not-failed | 1.1 open 0 | nothing',
    begun: 'round-not-failed | 1.1 open 1 | nothing',
    paused: 'round-not-failed | 1.1 open 1 | nothing',
    aggregating: 'round-not-failed | 1.1 done 2, 1.2 open 0 | aggregation 1',
    summed: 'round-not-failed | 1.1 summed 2, 1.2 open 0 | nothing',
    done: 'round-not-failed | 1.1 done 2, 1.2 open 0 | nothing',
    failed: 'aggregating | 1.1 done 2, 1.2 open 0 | aggregation 1',
    stopped: 'round-not-failed | 1.1 discarded 1 | nothing',
  },
  exclude: {
    empty: 'open without 1, 0 left | 1.1 open 0 | nothing',
    begun: 'open without 1, 0 left | 1.1 open 0 | nothing',
    paused: 'open without 1, 0 left | 1.1 open 0 | nothing',
    aggregating: 'round-finished | 1.1 done 2, 1.2 open 0 | aggregation 1',
    summed: 'round-finished | 1.1 summed 2, 1.2 open 0 | nothing',
    done: 'round-finished | 1.1 done 2, 1.2 open 0 | nothing',
    failed: 'failed without 1, 1 left | 1.1 failed 1, 1.2 open 0 | nothing',
    stopped: 'round-finished | 1.1 discarded 1 | nothing',
  },
  crash: {
    empty: 'in 1 | 1.1 open 1 | nothing',
    begun: 'in 1 | 1.1 failed 2, 1.2 open 0 | nothing',
    paused: 'run-paused | 1.1 open 1 | nothing',
    aggregating: 'in 2 | 1.1 failed 2, 1.2 open 1 | nothing',
    summed: 'in 2 | 1.1 summed 2, 1.2 open 1 | nothing',
    done: 'in 2 | 1.1 done 2, 1.2 open 1 | nothing',
    failed: 'in 2 | 1.1 failed 2, 1.2 open 1 | nothing',
    stopped: 'run-stopped | 1.1 discarded 1 | nothing',
  },
  'hand down': {
    empty: 'round-not-summed | 1.1 open 0 | nothing',
    begun: 'round-not-summed | 1.1 open 1 | nothing',
    paused: 'round-not-summed | 1.1 open 1 | nothing',
    aggregating: 'round-not-summed | 1.1 done 2, 1.2 open 0 | aggregation 1',
    summed: 'done | 1.1 done 2, 1.2 open 0 | aggregation 1',
    done: 'round-not-summed | 1.1 done 2, 1.2 open 0 | nothing',
    failed: 'round-not-summed | 1.1 failed 2, 1.2 open 0 | nothing',
    stopped: 'round-not-summed | 1.1 discarded 1 | nothing',
  },
  kill: {
    empty: 'start | 1.1 open 0 | nothing',
    begun: 'start | 1.1 open 1 | nothing',
    paused: 'pause | 1.1 open 1 | nothing',
    aggregating: 'start | 1.1 done 2, 1.2 open 0 | aggregation 1',
    summed: 'start | 1.1 summed 2, 1.2 open 0 | nothing',
    done: 'start | 1.1 done 2, 1.2 open 0 | nothing',
    failed: 'start | 1.1 failed 2, 1.2 open 0 | nothing',
    stopped: 'stop | 1.1 discarded 1 | nothing',
  },
};

const test = suite('states');

for (const event of Object.keys(EVENTS) as Event[]) {
  for (const state of Object.keys(STATES) as State[]) {
    test(`${event}, ${state}`, async () => {
      const rig = await new Rig().start();
      let release = () => {};
      rig.toys.gate = new Promise((resolve) => {
        release = resolve;
      });
      try {
        const branch = await rig.branch({
          aggregation_target: 2,
          minimum: 1,
          deadline_ms: DEADLINE,
          replace: true,
          ...POLICIES[state],
        });
        const leaves = await rig.leaves(branch, 3);
        await changeRun(rig.domain, branch, 'start');
        const stage: Stage = { rig, branch, leaves, number: 1, release };
        await STATES[state](stage);
        const before = (await rig.told(branch)).length;
        const answer = await codeOf(() => EVENTS[event](stage));
        release();
        for (const { round } of await rig.rounds(branch)) await rig.settled(branch, round);
        const rounds = (await rig.rounds(branch)).reverse().map(({ run_number, round, status, updates }) => {
          const count = updates.filter(({ left_out }) => left_out === null).length;
          return `${run_number}.${round} ${status} ${count}`;
        });
        const heard = (await rig.told(branch)).slice(before);
        const actual = [answer, rounds.join(', '), heard.join(', ') || 'nothing'].join(' | ');
        assert.is(actual, EXPECTED[event][state]);
      } finally {
        release();
        await rig.end();
      }
    });
  }
}

test.run();
