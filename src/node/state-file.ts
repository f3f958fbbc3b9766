/**
 * The state of an optimiser beside the model that it belongs to: two files, and a crash between them neither loses a step
 * nor takes one twice.
 *
 *     1. the new state is written to FILE.next, with the digest of the new model
 *     2. the new model appears under its name                                  <- from here on the step has been taken
 *     3. FILE.next becomes FILE
 *
 * A process that dies at any moment leaves one of these; to outlast a power cut, both files have to be flushed (`durable`).
 *
 * Who begins a round says which model it starts from. FILE belongs to it: a FILE.next there may be is of a step that was
 * not taken, and is written over. FILE.next belongs to it: 3 is made up for. Neither: the state is refused. (Where a step
 * leaves every bit of the model as it was, both belong to it; then FILE.next counts.)
 */
import { existsSync, renameSync } from 'node:fs';
import { encodeState, readState, type StateOwner } from '../aggregate/optimiser-state.ts';
import { AggregationError } from '../errors.ts';
import type { ByteSink, ByteSource } from '../tensor/bytes.ts';
import { openFileSinkSync, openFileSourceSync } from './files.ts';

/** The state to go on from; the caller closes its source. */
export interface OpenedState {
  readonly source: ByteSource;
  readonly round: number;
  readonly byteOffsets: readonly number[];
}

/**
 * Opens the state that belongs to a model.
 *
 * @param model SHA-256 of the model file that the round starts from
 * @returns null when there is none yet
 * @throws AggregationError `state-mismatch`; FormatError, FileError
 */
export async function openStateFile(
  path: string,
  owner: StateOwner,
  model: string,
): Promise<OpenedState | null> {
  const next = nextOf(path);
  const isNext = existsSync(next) && (await belongs(next, owner, model));
  if (isNext) renameSync(next, path);
  if (!existsSync(path)) return null;
  const source = openFileSourceSync(path);
  try {
    const stored = await readState(source, owner);
    if (stored.model !== model) {
      throw new AggregationError(
        'state-mismatch',
        `${path} belongs to the model ${stored.model}, not to ${model}: give that one, or begin with a new state`,
      );
    }
    return { source, round: stored.round, byteOffsets: stored.byteOffsets };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Whether a state is whole and belongs to the model. What is left of a crash may be anything. */
async function belongs(path: string, owner: StateOwner, model: string): Promise<boolean> {
  const source = openFileSourceSync(path);
  try {
    return (await readState(source, owner)).model === model;
  } catch {
    return false;
  } finally {
    await source.close();
  }
}

/** A state that is being written. */
export interface NextState {
  /** Where each tensor of `stateTensors` begins. */
  readonly byteOffsets: readonly number[];
  readonly sink: Pick<ByteSink, 'write' | 'handle'>;
  /** Before the new model appears: completes the state as FILE.next. @param model SHA-256 of the new model file */
  prepare(model: string): Promise<void>;
  /** After the new model has appeared. */
  finish(): void;
  discard(): Promise<void>;
}

/**
 * @param round steps that the state will have seen
 * @param durable flush the file and its folder to the disk before `prepare` ends
 */
export function createStateFile(path: string, owner: StateOwner, round: number, durable = false): NextState {
  const { payloads } = encodeState(owner, round);
  const sink = openFileSinkSync(nextOf(path), { durable });
  return {
    byteOffsets: payloads.map(({ offset }) => offset),
    sink,
    async prepare(model) {
      for (const { offset, bytes } of encodeState(owner, round, model).literals)
        await sink.write(offset, bytes);
      await sink.commit();
    },
    finish: () => renameSync(nextOf(path), path),
    discard: async () => sink.discard(),
  };
}

function nextOf(path: string): string {
  return `${path}.next`;
}
