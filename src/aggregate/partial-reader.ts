/** Exact partial sums as files, opened and checked. The file is described in `partial-file.ts`. */
import type { FormatError } from '../errors.ts';
import { type Crc32, combineCrc32, crc32 as slowCrc32 } from '../formats/crc32.ts';
import type { TensorSpec } from '../formats/encoding.ts';
import { readExactly } from '../formats/exact.ts';
import { formatError } from '../formats/format-error.ts';
import { KIND, PARTIAL_SUM, readSafetensors } from '../formats/safetensors.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { DTYPES } from '../tensor/dtypes.ts';
import type { Layout, TensorLayout } from '../tensor/layout.ts';
import { compareUtf8 } from '../tensor/text.ts';
import {
  checksumSeed,
  checksumText,
  chunksOf,
  ENDS,
  MAX_TOTAL_UNITS,
  numbersOf,
  RESIDUES,
  type SumLeaf,
  type SumOwner,
  sumSpec,
  totalOfLeaves,
  VERSION,
} from './partial-file.ts';
import { MAX_WEIGHTING, MIN_WEIGHTING } from './weightings.ts';

/** Bytes that are checked at a time. */
const CHECK_BYTES = 1 << 20;

/** A partial sum in a file: what it is of, and where its numbers lie. */
export interface PartialSum extends SumOwner {
  readonly source: ByteSource;
  /** Of the weightings, in units of 2^-116. */
  readonly total: bigint;
  /** By tensor: where its sums begin. */
  readonly byteOffsets: readonly number[];
  /** By tensor: its first chunk. */
  readonly chunks: readonly number[];
  readonly endsOffset: number;
  readonly residuesOffset: number;
  readonly residueBytes: number;
  /** Where the bytes begin that the checksum covers, what it goes on from there, and what the file says it is. */
  readonly dataOffset: number;
  readonly seed: number;
  readonly checksum: string | undefined;
}

type Refuse = (code: string, sentence: string, tensor?: string) => never;

/**
 * Opens a partial sum. Its checksum is compared by who reads it: `verifyPartialSum`, or a summation on its way.
 *
 * @throws FormatError `st-…`; `partial-form` when it is no partial sum or says things that do not fit each other,
 *   `partial-version`, `partial-leaf-duplicate`, `partial-total`
 */
export async function openPartialSum(source: ByteSource): Promise<PartialSum> {
  const { layout, metadata } = await readSafetensors(source);
  const refuse: Refuse = (code, sentence, tensor) => {
    throw formatError(code, sentence, { file: source.name, tensor });
  };
  if (metadata.get(KIND) !== PARTIAL_SUM) refuse('partial-form', 'not a partial sum');
  const version = metadata.get('version');
  if (version !== VERSION) {
    refuse('partial-version', `a partial sum of version ${version?.slice(0, 40)}; ${VERSION} is read`);
  }
  const texts = {
    tensors: metadata.get('tensors') ?? '',
    leaves: metadata.get('leaves') ?? '',
    total: metadata.get('total') ?? '',
  };
  const tensors = readTensorList(texts.tensors, refuse);
  const leaves = readLeafList(texts.leaves, refuse);
  const total = totalOfLeaves(leaves);
  if (String(total) !== texts.total || total > MAX_TOTAL_UNITS) {
    refuse('partial-total', 'the total is not the sum of the weightings, or is more than 2^53 - 1');
  }
  const places = placesOf(layout, tensors, refuse);
  await checkLastEnd(source, places);
  return {
    source,
    tensors,
    leaves,
    total,
    ...places,
    seed: checksumSeed(texts),
    checksum: metadata.get('crc32'),
  };
}

function placesOf({ tensors: stored }: Layout, tensors: readonly TensorSpec[], refuse: Refuse) {
  const byName = new Map(stored.map((tensor) => [tensor.name, tensor]));
  const find = ({ name, dtype, shape }: TensorSpec): TensorLayout & { readonly byteOffset: number } => {
    const found = byName.get(name);
    if (found === undefined || found.byteOffset === null) {
      return refuse('partial-form', 'the file lacks this tensor', name ?? undefined);
    }
    if (found.dtype !== dtype || found.shape.join() !== shape.join()) {
      refuse(
        'partial-form',
        `${found.dtype} (${found.shape.join(', ')}), where ${dtype} (${shape.join(', ')}) must be`,
        name ?? undefined,
      );
    }
    return { ...found, byteOffset: found.byteOffset };
  };
  const counts = tensors.map(chunksOf);
  const chunkCount = counts.reduce((sum, count) => sum + count, 0);
  const ends = find({ name: ENDS, dtype: 'uint64', shape: [chunkCount] });
  const residues = find({ name: RESIDUES, dtype: 'uint8', shape: byName.get(RESIDUES)?.shape ?? [] });
  if (residues.shape.length !== 1) refuse('partial-form', 'residues are one run of bytes', RESIDUES);
  const sums = tensors.map((tensor, i) => find(sumSpec(tensor, i)));
  if (byName.size !== tensors.length + 2) refuse('partial-form', 'the file has other tensors than it lists');
  const chunks = new Array<number>(tensors.length).fill(0);
  let chunk = 0;
  const order = sums.map((_, i) => i).sort((a, b) => sums[a]!.byteOffset - sums[b]!.byteOffset);
  for (const i of order) {
    chunks[i] = chunk;
    chunk += counts[i]!;
  }
  const [first] = [ends, ...sums, residues].sort((a, b) => a.byteOffset - b.byteOffset);
  return {
    byteOffsets: sums.map(({ byteOffset }) => byteOffset),
    chunks,
    chunkCount,
    dataOffset: first!.byteOffset,
    endsOffset: ends.byteOffset,
    residuesOffset: residues.byteOffset,
    residueBytes: residues.byteLength,
  };
}

type Places = ReturnType<typeof placesOf>;

/** Reads all of a partial sum and compares its checksum. Throws FormatError `partial-crc`; the reason of `signal`. */
export async function verifyPartialSum(
  sum: PartialSum,
  options: {
    readonly crc32?: Crc32 | undefined;
    readonly signal?: Pick<AbortSignal, 'throwIfAborted'> | undefined;
  } = {},
): Promise<void> {
  const { source, dataOffset, seed } = sum;
  refuseUnless(sum, await checksumOf(source, dataOffset, source.byteLength, seed, options));
}

/**
 * Compares the checksum of a partial sum whose numbers others have read.
 *
 * @param read CRC-32 of the sums of each tensor, and of its residues
 * @throws FormatError `partial-crc`
 */
export async function compareChecksum(
  sum: PartialSum,
  read: { readonly sums: readonly number[]; readonly residues: readonly number[] },
  crc32: Crc32,
): Promise<void> {
  const { source, tensors, byteOffsets, chunks, endsOffset, residuesOffset } = sum;
  const parts = [];
  let chunkCount = 0;
  for (const [i, tensor] of tensors.entries()) {
    const count = chunksOf(tensor);
    const [begin] = await readResidueEnds(sum, chunks[i]!, 0);
    const [end] = await readResidueEnds(sum, chunks[i]! + count, 0);
    parts.push(
      { offset: byteOffsets[i]!, byteLength: 8 * numbersOf(tensor), crc: read.sums[i]! },
      { offset: residuesOffset + begin!, byteLength: end! - begin!, crc: read.residues[i]! },
    );
    chunkCount += count;
  }
  const byteLength = 8 * chunkCount;
  const crc = await checksumOf(source, endsOffset, endsOffset + byteLength, 0, { crc32 });
  parts.push({ offset: endsOffset, byteLength, crc });
  // Of parts that begin at one place all but one are empty, and change nothing.
  parts.sort((a, b) => a.offset - b.offset);
  refuseUnless(
    sum,
    parts.reduce((all, part) => combineCrc32(all, part.crc, part.byteLength), sum.seed),
  );
}

function refuseUnless({ source, checksum }: PartialSum, crc: number): void {
  if (checksumText(crc) === checksum) return;
  throw formatError('partial-crc', 'the checksum is wrong: the file was damaged', { file: source.name });
}

async function checksumOf(
  source: ByteSource,
  from: number,
  to: number,
  seed: number,
  { crc32 = slowCrc32, signal }: Parameters<typeof verifyPartialSum>[1] & object,
): Promise<number> {
  const buffer = new Uint8Array(Math.min(CHECK_BYTES, to - from));
  let crc = seed;
  for (let at = from; at < to; at += buffer.byteLength) {
    signal?.throwIfAborted();
    const bytes = buffer.subarray(0, Math.min(buffer.byteLength, to - at));
    await readExactly(source, at, bytes, 'partial-form');
    crc = crc32(bytes, crc);
  }
  return crc;
}

async function checkLastEnd(source: ByteSource, places: Places): Promise<void> {
  const { endsOffset, chunkCount, residueBytes } = places;
  let end = 0;
  const offset = endsOffset + 8 * (chunkCount - 1);
  if (chunkCount > 0) {
    const bytes = new Uint8Array(8);
    await readExactly(source, offset, bytes, 'partial-form');
    end = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  }
  if (end !== residueBytes) {
    throw formatError('partial-form', `residues end at ${end} of ${residueBytes} bytes`, {
      file: source.name,
      tensor: ENDS,
      offset,
    });
  }
}

/**
 * Where the residues of some chunks begin and end in the residues of the file.
 *
 * @returns count + 1 positions, none below the one before, each a multiple of 8
 * @throws FormatError `partial-form`
 */
export async function readResidueEnds(
  sum: Pick<PartialSum, 'source' | 'endsOffset' | 'residueBytes'>,
  chunk: number,
  count: number,
): Promise<number[]> {
  const { source, endsOffset, residueBytes } = sum;
  const from = Math.max(0, chunk - 1);
  const bytes = new Uint8Array(8 * (chunk + count - from));
  const offset = endsOffset + 8 * from;
  await readExactly(source, offset, bytes, 'partial-form');
  const view = new DataView(bytes.buffer);
  const ends = chunk === 0 ? [0] : [];
  for (let at = 0; at < bytes.byteLength; at += 8) {
    const end = Number(view.getBigUint64(at, true));
    if (end < (ends.at(-1) ?? 0) || end > residueBytes || end % 8 !== 0) {
      throw formatError('partial-form', `the residues of a chunk end at ${end}`, {
        file: source.name,
        tensor: ENDS,
        offset: offset + at,
      });
    }
    ends.push(end);
  }
  return ends;
}

/** A residue that cannot be. */
export function residueError(
  { source, residuesOffset }: Pick<PartialSum, 'source' | 'residuesOffset'>,
  at: number,
): FormatError {
  return formatError('partial-residue', 'residues that no sum has', {
    file: source.name,
    offset: residuesOffset + at,
  });
}

function readTensorList(text: string, refuse: Refuse): TensorSpec[] {
  return readList(text, 'tensors', refuse).map((entry): TensorSpec => {
    const [name, dtype, shape, ...rest] = Array.isArray(entry) ? (entry as unknown[]) : [];
    const isShape =
      Array.isArray(shape) && shape.every((one) => Number.isSafeInteger(one) && (one as number) >= 0);
    const isKnown = typeof dtype === 'string' && Object.hasOwn(DTYPES, dtype) && dtype !== 'void16';
    if (!(name === null || typeof name === 'string') || !isKnown || !isShape || rest.length > 0) {
      return refuse('partial-form', 'the tensors are not [[name, dtype, shape], …]');
    }
    return { name, dtype: dtype as TensorSpec['dtype'], shape: shape as number[] }; // checked above
  });
}

function readLeafList(text: string, refuse: Refuse): SumLeaf[] {
  const leaves = readList(text, 'leaves', refuse).map((entry): SumLeaf => {
    const [leaf, weighting, ...rest] = Array.isArray(entry) ? (entry as unknown[]) : [];
    const isWeighting =
      weighting === null ||
      (typeof weighting === 'number' && weighting >= MIN_WEIGHTING && weighting <= MAX_WEIGHTING);
    if (typeof leaf !== 'string' || !isWeighting || rest.length > 0) {
      return refuse('partial-form', 'the leaves are not [[id, weighting], …]');
    }
    return { leaf, weighting: weighting as number | null }; // checked above
  });
  for (const [i, { leaf, weighting }] of leaves.entries()) {
    const before = leaves[i - 1];
    if (before === undefined) continue;
    const order = compareUtf8(before.leaf, leaf);
    if (order === 0) refuse('partial-leaf-duplicate', `the leaf ${JSON.stringify(leaf)} is listed twice`);
    if (order > 0) refuse('partial-form', 'the leaves are not in the order of their ids');
    if ((weighting === null) !== (before.weighting === null)) {
      refuse('partial-form', 'some leaves have a weighting, others have none');
    }
  }
  if (leaves.length === 0) refuse('partial-form', 'a sum of no leaves');
  return leaves;
}

function readList(text: string, what: string, refuse: Refuse): unknown[] {
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch {
    return refuse('partial-form', `the ${what} in the metadata are no JSON`);
  }
  return Array.isArray(list) ? list : refuse('partial-form', `the ${what} in the metadata are no list`);
}
