/**
 * Runs that begin with a model: it is aggregation 0 of round 0, which is done from the start. Leaves are told of it as of
 * any other, late joiners find it as the newest one, and its tensors are the contract of the run.
 */
import { randomUUID } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { FormatError } from '../../errors.ts';
import type { RunBody } from '../../wire/cambium.ts';
import type { Database } from '../store/database.ts';
import type { Spooled } from '../store/spool.ts';
import { checkTensors, contractOf } from './contract.ts';
import { checkModel } from './differences.ts';
import type { Domain } from './domain.ts';
import { examineFile } from './examining.ts';
import { announce, writeNotice } from './notices.ts';
import { policyOf } from './policy.ts';
import { Refusal } from './refusal.ts';
import { currentRun, getRun, type Run, rootBranch, startRun } from './runs.ts';
import type { Branch } from './trees.ts';

/** What the model counts for in the files that leaves read; every reader takes a positive integer. */
const WEIGHTING = 1;

/**
 * Starts a run with an initial global model.
 *
 * @throws Refusal `branch-unknown`, `branch-below`, `run-open`, `policy-minimum-leaves`, codes of FormatError,
 *   `difference-model`, `layout-empty`, `aggregate-dtype-unsupported`, `non-finite`
 */
export async function startWithModel(domain: Domain, branchId: string, spooled: Spooled): Promise<RunBody> {
  const { db, blobs, jobs } = domain;
  const { branch } = await stoppedBranch(db, branchId);
  const examination = await examineFile(domain, spooled, 'the initial model');
  checkModel(examination.layout, 'the initial model');
  const policy = policyOf(branch, branch.aggregation_target);
  checkTensors(examination, { strategy: policy.strategy, non_finite: 'reject' });
  const id = randomUUID();
  const output = blobs.workPath(id);
  const report = await jobs
    .convert({ input: spooled.path, output, format: 'npy-object', weighting: WEIGHTING, void16: 'bfloat16' })
    .catch((error: unknown) => {
      if (!(error instanceof FormatError)) throw error;
      throw new Refusal('unprocessable', error.code, error.message, undefined, { cause: error });
    });
  const { size } = await stat(output);
  await blobs.put(id, output);
  let roundId: string;
  try {
    roundId = await db.transaction().execute(async (tx) => {
      const { branch, run } = await stoppedBranch(tx, branchId);
      const now = domain.now();
      const started = await startRun(tx, branch, run, contractOf(examination.layout), now);
      const roundId = randomUUID();
      await tx
        .insertInto('rounds')
        .values({
          id: roundId,
          run_id: started.runId,
          branch_id: branchId,
          number: 0,
          status: 'done',
          aggregation_id: id,
          total_weighting: WEIGHTING,
          aggregation_seconds: null,
          failure: null,
          opened_at: now,
          closed_at: now,
          done_at: now,
          policy: JSON.stringify(policy),
          sample: null,
          closes_at: null,
          minimum_at: null,
          started_at: null,
          strategy: null,
          bytes_read: null,
          write_seconds: null,
        })
        .execute();
      await tx
        .insertInto('aggregations')
        .values({
          id,
          round_id: roundId,
          branch_id: branchId,
          leaves: 0,
          total_weighting: WEIGHTING,
          byte_length: size,
          sha256: report.sha256!, // asked for
          created_at: now,
          state_id: null,
          removed_at: null,
        })
        .execute();
      await writeNotice(
        tx,
        branchId,
        started.runId,
        {
          message_type: 'aggregation_status',
          body: { aggregation_id: id },
          aggregation_id: id,
          run: started.number,
          round: 0,
        },
        now,
      );
      return started.roundId;
    });
  } catch (error) {
    await blobs.remove(id);
    throw error;
  }
  await announce(domain, branchId, roundId);
  return getRun(domain, branchId);
}

/** A root branch without a run that goes on. */
async function stoppedBranch(
  tx: Database,
  branchId: string,
): Promise<{ readonly branch: Branch; readonly run: Run | undefined }> {
  const branch = await rootBranch(tx, branchId);
  const run = await currentRun(tx, branch);
  if (run === undefined || run.status === 'stop') return { branch, run };
  throw new Refusal('conflict', 'run-open', `run ${run.number} is going on: stop it first`);
}
