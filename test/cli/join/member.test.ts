/** A leaf of `cambium join` on a machine that gets into trouble: beside a real server, with a disk and a clock of the test's. */
import { createHash, type Hash } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { exitCodeOf } from '../../../src/cli/exit.ts';
import { JoinFolder } from '../../../src/cli/join/folder.ts';
import { Member } from '../../../src/cli/join/member.ts';
import type { JoinReport } from '../../../src/cli/join/report.ts';
import type { FileAccess, Sha256 } from '../../../src/client/file-access.ts';
import type { ClientOptions } from '../../../src/client/options.ts';
import { FileError } from '../../../src/errors.ts';
import { Client } from '../../../src/node/client.ts';
import { openFileSink, openFileSource } from '../../../src/node/files.ts';
import type { Jobs } from '../../../src/node/jobs.ts';
import { openPartialSink } from '../../../src/node/partial-files.ts';
import { startJobs } from '../../../src/node/workers.ts';
import { realTimers } from '../../../src/server/timers.ts';
import type { Clock } from '../../../src/transport/clock.ts';
import { type CredentialsBody, paths, type RoundBody } from '../../../src/wire/cambium.ts';
import { failsWith } from '../../helpers/errors.ts';
import { freePorts } from '../../helpers/loopback.ts';
import { Harness } from '../../server/harness.ts';

const PROGRAM = fileURLToPath(new URL('../join-program.mjs', import.meta.url));
const DAY_MS = 86_400_000;

const test = suite('member');
const path = mkdtempSync(join(tmpdir(), 'cambium-member-'));
let jobs: Jobs;
let harness: Harness;
let folders = 0;

test.before(async () => {
  jobs = startJobs({ threads: 1, workerUrl: new URL('../../../dist/worker.js', import.meta.url) });
  harness = await new Harness().start({ jobs, timers: realTimers });
});
test.after(async () => {
  await harness.end();
  await jobs.close();
  rmSync(path, { recursive: true, force: true });
});

type Told = Parameters<JoinReport['tell']>[0];

/** Takes part for so many rounds, and says what was told. */
async function takePart(
  client: Client,
  folder: JoinFolder,
  rounds: number,
  { clock, onTold = () => {} }: { clock?: Clock; onTold?: (event: Told) => void } = {},
): Promise<Told[]> {
  const told: Told[] = [];
  const tell = (event: Told) => {
    told.push(event);
    onTold(event);
  };
  const member = new Member({
    ...{ client, folder, jobs, clock, rounds },
    // What a member uses of it.
    report: { tell, pass() {}, forward() {}, hasStatus: false } as unknown as JoinReport,
    program: [process.execPath, PROGRAM, 'good', '{global}', '{update}', '{metrics}'],
    ...{ format: 'npy-object', weighting: undefined, policy: 'stop', retries: 0, retryMs: 1 },
    ...{ timeoutMs: undefined, isTold: true, signal: AbortSignal.timeout(240_000) },
  });
  await member.takePart();
  return told;
}

/** The files of this machine, on a disk that is full while it is said to be. */
function fullDisk(isFull: () => boolean): FileAccess {
  const sha256Of = (hash: Hash): Sha256 => ({
    update: (bytes) => void hash.update(bytes),
    copy: () => sha256Of(hash.copy()),
    digest: () => hash.digest('hex'),
    digestBytes: () => hash.digest(),
  });
  return {
    openSource: (file) => openFileSource(file),
    openSink: (file) => openFileSink(file),
    async openPartialSink(file, key) {
      const sink = await openPartialSink(file, key);
      return {
        ...sink,
        async write(offset, bytes) {
          if (isFull()) throw new FileError('disk-full', `cannot write ${file}: the disk is full`, file);
          await sink.write(offset, bytes);
        },
      };
    },
    sha256: () => sha256Of(createHash('sha256')),
  };
}

/** Pauses are over at the next turn, timeouts never come, and it can be put ahead or back while all pauses wait. */
class JumpingClock implements Clock {
  #now = Date.UTC(2026, 0, 1);
  #held: (() => void)[] | undefined;

  now(): number {
    return this.#now;
  }

  after(delayMs: number, work: () => void): () => void {
    if (delayMs >= 30_000) return () => {};
    let isOver = false;
    const go = () => {
      if (isOver) return;
      this.#now += delayMs;
      work();
    };
    if (this.#held === undefined) setImmediate(go);
    else this.#held.push(go);
    return () => {
      isOver = true;
    };
  }

  hold(): void {
    this.#held = [];
  }

  jump(ms: number): void {
    this.#now += ms;
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const go of held) go();
  }
}

const openFolder = () => JoinFolder.open(join(path, String(++folders)), 'npy-object');
const clientOf = (leaf: CredentialsBody, options: ClientOptions) =>
  new Client(leaf, { ...options, notices: { ...options.notices, queue: 'newest' } });

test('a disk that is full ends it, with all that was done before kept', async () => {
  const [leaf] = (await harness.branch(1)).leaves as [CredentialsBody];
  const folder = await openFolder();
  let isFull = true;
  const client = clientOf(leaf, {
    files: fullDisk(() => isFull),
  });
  const error = await failsWith('disk-full', () => takePart(client, folder, 2));
  assert.is(exitCodeOf(error), 74);
  assert.equal([folder.state.contributed?.round, folder.state.pending], [1, null]);
  isFull = false;
  const told = await takePart(client, folder, 1);
  await client.close();
  assert.equal(
    told.flatMap((event) => (event.event === 'uploaded' ? [event.round] : [])),
    [2],
  );
});

test('what a power cut has left of an update is trained again; what was sent takes no room', async () => {
  const [leaf] = (await harness.branch(1)).leaves as [CredentialsBody];
  const folder = await openFolder();
  writeFileSync(folder.ready, '');
  await folder.remember({ pending: { run: 1, round: 1, aggregationId: null } });
  const client = clientOf(leaf, {});
  const told = await takePart(client, folder, 1);
  await client.close();
  assert.equal(
    told.flatMap((event) => (event.event === 'failed' ? [event.code] : [])),
    ['format-empty'],
  );
  assert.equal([folder.state.contributed?.round, existsSync(folder.ready)], [1, false]);
});

for (const carrier of ['events', 'polling'] as const) {
  test(`another round is begun as soon as the one that it waits for is given up, by ${carrier}`, async () => {
    const { id, leaves } = await harness.branch(2);
    // Looks at the server are not what it hears of it by: this clock never lets one come.
    const clock = new JumpingClock();
    const client = clientOf(leaves[0]!, { clock, notices: { carrier, pollIntervalMs: 1000 } });
    let discarded: Promise<unknown> | undefined;
    const discard = async () => {
      const { body } = await harness.operate<{ items: RoundBody[] }>('GET', paths.rounds(id));
      return harness.operate('POST', paths.roundDiscard(body.items[0]!.id));
    };
    const told = await takePart(client, await openFolder(), 2, {
      clock,
      onTold: ({ event }) => {
        if (event === 'waiting') discarded ??= discard();
      },
    });
    await discarded;
    await client.close();
    assert.equal(
      told.flatMap((event) => (event.event === 'uploaded' ? [event.round] : [])),
      [1, 2],
    );
  });
}

for (const jumpMs of [-DAY_MS, DAY_MS]) {
  test(`a clock that jumps by ${jumpMs} ms while the server is away costs nothing`, async () => {
    const [port] = await freePorts(1);
    const own = await new Harness().start({ jobs, timers: realTimers, port });
    const [leaf] = (await own.branch(1)).leaves as [CredentialsBody];
    await own.server.close();
    const clock = new JumpingClock();
    const client = clientOf(leaf, {
      clock,
      retry: { attempts: 1 },
      circuit: { failures: 1, pauseMs: 20_000 },
    });
    let back: Promise<unknown> | undefined;
    const told = await takePart(client, await openFolder(), 1, {
      clock,
      onTold: ({ event }) => {
        if (event !== 'waiting' || back !== undefined) return;
        clock.hold();
        back = own.start({ jobs, timers: realTimers, port }).then(() => clock.jump(jumpMs));
      },
    });
    await back;
    await client.close();
    await own.end();
    assert.equal(
      told.map(({ event }) => event),
      ['waiting', 'training', 'metrics', 'metrics', 'uploaded', 'done'],
    );
  });
}

test.run();
