/**
 * The state of a server optimiser as a Blob: the bytes of the file that Node keeps (`optimiser-state.ts`), tied to its model by
 * the digest of that model's file. Model and state are results of one job, so there is no order between them to keep.
 */
import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex } from '@noble/hashes/utils.js';
import {
  encodeState,
  readState,
  type StateOwner,
  type StoredState,
  stateInputs,
} from '../aggregate/optimiser-state.ts';
import type { StateInput } from '../aggregate/plan.ts';
import { AggregationError } from '../errors.ts';
import { blobSource } from '../tensor/blob.ts';
import type { ByteSink, ByteSource } from '../tensor/bytes.ts';
import { blobSink } from './blob-pieces.ts';
import { openBlob } from './blob-streams.ts';

/** Bytes of a Blob that are hashed at a time. */
const HASH_BYTES = 4 << 20;

/** The state before a round, and the one after it while it is written. */
export interface BlobState {
  /** For the aggregation; undefined before the first round. */
  readonly inputs: readonly StateInput[] | undefined;
  /** Where each tensor of `stateTensors` begins. */
  readonly byteOffsets: readonly number[];
  readonly sink: ByteSink;
  /** Completes the state. @param model the file that the round has led to */
  finish(model: Blob): Promise<Blob>;
}

/**
 * @param before the state that the last round gave, null before the first one
 * @param model the file that the round starts from
 * @throws AggregationError `state-mismatch` when the state is of another model, rule or parameters; FormatError
 */
export async function openBlobState(
  owner: StateOwner,
  before: Blob | null,
  model: Blob,
  signal: AbortSignal | undefined,
): Promise<BlobState> {
  const stored = before === null ? null : await readStored(blobSource(before, 'state'), owner, model, signal);
  const round = (stored?.round ?? 0) + 1;
  const { byteLength, payloads } = encodeState(owner, round);
  const sink = blobSink(byteLength);
  return {
    inputs: stored?.inputs,
    byteOffsets: payloads.map(({ offset }) => offset),
    sink,
    async finish(result) {
      const { literals } = encodeState(owner, round, await digestOf(result, signal));
      for (const { offset, bytes } of literals) await sink.write(offset, bytes);
      await sink.commit();
      return sink.blob;
    },
  };
}

async function readStored(
  source: ByteSource,
  owner: StateOwner,
  model: Blob,
  signal: AbortSignal | undefined,
): Promise<StoredState & { readonly inputs: readonly StateInput[] }> {
  const stored = await readState(source, owner);
  const digest = await digestOf(model, signal);
  if (stored.model !== digest) {
    throw new AggregationError(
      'state-mismatch',
      `the state belongs to the model ${stored.model}, not to ${digest}: give that one, or begin with a new state`,
    );
  }
  return { ...stored, inputs: stateInputs(owner, source, stored.byteOffsets) };
}

/** SHA-256 in lower-case hexadecimal, block by block: WebCrypto would want all of it in memory. */
async function digestOf(blob: Blob, signal: AbortSignal | undefined): Promise<string> {
  const source = openBlob(blob, 'model', 1);
  const hash = sha256.create();
  const buffer = new Uint8Array(Math.min(HASH_BYTES, blob.size));
  try {
    for (let at = 0; at < blob.size; at += buffer.byteLength) {
      signal?.throwIfAborted();
      hash.update(buffer.subarray(0, await source.readInto(at, buffer)));
    }
  } finally {
    await source.close();
  }
  return bytesToHex(hash.digest());
}
