/** The domain by itself, on a data directory of its own and a clock that tests turn: no HTTP, no port. */
import { createHash, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isCambiumError } from '../../../src/errors.ts';
import type { Jobs } from '../../../src/node/jobs.ts';
import { Aggregator } from '../../../src/server/domain/aggregations.ts';
import { Deadlines } from '../../../src/server/domain/deadlines.ts';
import type { Domain } from '../../../src/server/domain/domain.ts';
import { createLeaf, type Leaf } from '../../../src/server/domain/leaves.ts';
import { noticesAfter } from '../../../src/server/domain/notices.ts';
import { addOperator, type Operator } from '../../../src/server/domain/operators.ts';
import { listRounds } from '../../../src/server/domain/round-view.ts';
import { Signals } from '../../../src/server/domain/signals.ts';
import { sweepBlobs } from '../../../src/server/domain/sweep.ts';
import { createBranch, createTree, type NewBranch } from '../../../src/server/domain/trees.ts';
import { acceptUpdate, type UpdateOptions } from '../../../src/server/domain/updates.ts';
import { fileBlobs } from '../../../src/server/store/blobs.ts';
import { type DataFolder, openDataFolder } from '../../../src/server/store/folder.ts';
import type { Spooled } from '../../../src/server/store/spool.ts';
import type { RoundBody } from '../../../src/wire/cambium.ts';
import { ManualClock } from '../../helpers/clock.ts';
import { quietLog, ToyJobs } from '../harness.ts';

const OPERATOR: Operator = { id: randomUUID(), name: 'o', role: 'operator' };

export class Rig {
  readonly path = mkdtempSync(join(tmpdir(), 'cambium-domain-'));
  readonly clock = new ManualClock();
  readonly jobs: Jobs;
  domain!: Domain;
  #folder!: DataFolder;
  #aggregator!: Aggregator;
  #deadlines!: Deadlines;

  constructor(jobs: Jobs = new ToyJobs()) {
    this.jobs = jobs;
  }

  /** Toy jobs, where none were given. */
  get toys(): ToyJobs {
    return this.jobs as ToyJobs;
  }

  async start(): Promise<this> {
    this.#folder = await openDataFolder(this.path);
    this.domain = {
      db: this.#folder.db,
      blobs: fileBlobs(this.#folder.blobs, this.#folder.spool),
      jobs: this.jobs,
      signals: new Signals(),
      log: quietLog(),
      now: () => this.clock.now(),
      keepUpdates: 1,
      maxUpdateBytes: 1 << 30,
    };
    await sweepBlobs(this.domain);
    this.#aggregator = new Aggregator(this.domain);
    this.domain.signals.on('closed', (branchId) => this.#aggregator.schedule(branchId));
    this.#deadlines = new Deadlines(this.domain, this.clock);
    await addOperator(this.domain.db, { ...OPERATOR, token: 'token' }, 0).catch(() => {}); // there after a restart
    await this.#aggregator.resume();
    this.#deadlines.look();
    return this;
  }

  /** What a process leaves that is killed: nothing is finished, nothing tidied up. */
  async kill(): Promise<void> {
    await this.#deadlines.close();
    await this.#aggregator.close();
    await this.#folder.close();
  }

  /** When the timer stands where it has to. */
  quiet(): Promise<void> {
    return this.#deadlines.idle();
  }

  /** When the aggregations that were asked for are over, with all that follows: a round is settled before that. */
  recorded(): Promise<void> {
    return this.#aggregator.idle();
  }

  async restart(): Promise<void> {
    await this.kill();
    await this.start();
  }

  async end(): Promise<void> {
    await this.kill();
    rmSync(this.path, { recursive: true });
  }

  async tree(): Promise<string> {
    return (await createTree(this.domain, OPERATOR, 'tree')).id;
  }

  async branch(fields: Omit<NewBranch, 'name' | 'tree_id'> & { tree_id?: string }): Promise<string> {
    const tree_id = fields.tree_id ?? (await this.tree());
    return (await createBranch(this.domain, { name: 'b', ...fields, tree_id })).id;
  }

  async leaves(branchId: string, count: number): Promise<Leaf[]> {
    const leaves: Leaf[] = [];
    for (let i = 0; i < count; i++) {
      leaves.push(await createLeaf(this.domain, { name: `leaf-${i}`, branch_id: branchId }));
    }
    return leaves;
  }

  async upload(leaf: Leaf, bytes: Uint8Array, options?: UpdateOptions) {
    const spooled = await this.spool(bytes);
    try {
      return (await acceptUpdate(this.domain, leaf, spooled, options)).body;
    } finally {
      await spooled.remove();
    }
  }

  async spool(bytes: Uint8Array): Promise<Spooled> {
    const path = join(this.#folder.spool, randomUUID());
    await writeFile(path, bytes);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const remove = async () => rmSync(path, { force: true });
    return { path, byteLength: bytes.byteLength, sha256, receiveMs: null, flushed: async () => {}, remove };
  }

  rounds(branchId: string): Promise<RoundBody[]> {
    return listRounds(this.domain.db, branchId);
  }

  async round(branchId: string, number: number): Promise<RoundBody> {
    return (await this.rounds(branchId)).find(({ round }) => round === number)!;
  }

  /** The round when its state is another one than these. */
  async settled(branchId: string, number: number): Promise<RoundBody> {
    return this.#until(branchId, number, ({ status }) => status !== 'aggregating');
  }

  /** Lets time pass; the round when the clock has done something to it. */
  async expired(branchId: string, number: number, ms: number): Promise<RoundBody> {
    const { closes_at, status } = await this.round(branchId, number);
    this.clock.pass(ms);
    return this.#until(
      branchId,
      number,
      (round) => round.status !== 'aggregating' && (round.closes_at !== closes_at || round.status !== status),
    );
  }

  async #until(branchId: string, number: number, isIt: (round: RoundBody) => boolean): Promise<RoundBody> {
    for (;;) {
      const round = await this.round(branchId, number);
      if (isIt(round)) return round;
      await new Promise(setImmediate);
    }
  }

  /** Short forms of what a branch was told after a notice. */
  async told(branchId: string, after = 0): Promise<string[]> {
    return (await noticesAfter(this.domain.db, branchId, after)).map(({ data }) =>
      data.message_type === 'run_status'
        ? `${data.body.run_status} ${data.round}`
        : `aggregation ${data.round}`,
    );
  }
}

/** What comes of a call: its value, or the code of its error. */
export async function codeOf<T>(work: () => Promise<T>): Promise<T | string> {
  try {
    return await work();
  } catch (error) {
    if (isCambiumError(error)) return error.code;
    throw error;
  }
}
