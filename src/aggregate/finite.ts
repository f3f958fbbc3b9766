import { type Core, openCore, openStrategies } from '../core/core.ts';
import { findNonFinite, swapBytes } from '../core/elements.ts';
import type { FoldExports } from '../core/exports.ts';
import type { NonFiniteElement } from '../errors.ts';
import type { Piece } from '../formats/decode.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { DTYPES, itemSize } from '../tensor/dtypes.ts';
import type { Layout, TensorLayout } from '../tensor/layout.ts';
import { readAll } from './reorder.ts';

/** Bytes read at a time. */
const BLOCK = 256 << 10;

/** As many as a report of an aggregation names. */
const REPORTED = 8;

/**
 * Finds NaN and infinity in a weight file: reads every floating-point element once, in constant memory.
 * Encoded elements are decoded as they are read, once the file is indexed.
 *
 * @param leaf who the elements belong to in the report
 * @returns the first eight by tensor and index; the index is that of C order
 * @throws FileError `file-changed` when the source ends too early
 */
export async function findNonFiniteElements(
  source: ByteSource,
  layout: Pick<Layout, 'tensors'>,
  leaf: string,
  signal?: Pick<AbortSignal, 'throwIfAborted'>,
): Promise<NonFiniteElement[]> {
  if (layout.tensors.every(({ parts }) => parts === undefined)) {
    const core = await openCore(BLOCK + 64);
    try {
      return await find(core, async () => {}, source, layout, leaf, signal);
    } finally {
      core.close();
    }
  }
  const { Decoder } = await import('../formats/decode.ts');
  const core = await openStrategies(BLOCK + 64 + Decoder.arenaBytes(BLOCK));
  try {
    const decoder = new Decoder(core, BLOCK);
    const decode: Decode = async (piece) => decoder.decode(source, [piece]);
    return await find(core, decode, source, layout, leaf, signal);
  } finally {
    core.close();
  }
}

type Decode = (piece: Piece) => Promise<void>;

async function find(
  core: Core<FoldExports>,
  decode: Decode,
  source: ByteSource,
  layout: Pick<Layout, 'tensors'>,
  leaf: string,
  signal: Pick<AbortSignal, 'throwIfAborted'> | undefined,
): Promise<NonFiniteElement[]> {
  const block = core.take(BLOCK);
  const found: NonFiniteElement[] = [];
  for (const [position, tensor] of layout.tensors.entries()) {
    const { dtype, byteOffset, byteLength, parts } = tensor;
    if ((byteOffset === null && parts === undefined) || !MAY_BE_NON_FINITE.test(dtype)) continue;
    const size = itemSize(dtype);
    const indices: number[] = [];
    for (let at = 0; at < byteLength; at += BLOCK) {
      signal?.throwIfAborted();
      const bytes = core.bytes(block, Math.min(BLOCK, byteLength - at));
      const count = bytes.byteLength / size;
      if (byteOffset !== null) await readAll(source, byteOffset + at, bytes);
      else await decode({ parts, byteOffset: 0, itemSize: size, start: at / size, count, out: block });
      if (tensor.byteOrder === 'big') {
        const number = dtype.startsWith('complex') ? size / 2 : size;
        swapBytes(core, block, bytes.byteLength / number, number);
      }
      let index = findNonFinite(core, DTYPES[dtype].code, block, count, 0);
      while (index >= 0 && indices.length < REPORTED) {
        indices.push(rankInC(tensor, at / size + index));
        index = findNonFinite(core, DTYPES[dtype].code, block, count, index + 1);
      }
      // In C order the first ones found are the first ones; stored order says nothing about the others.
      if (indices.length >= REPORTED) break;
    }
    indices.sort((a, b) => a - b);
    for (const index of indices) found.push({ tensor: position, index, leaf });
    if (found.length >= REPORTED) break;
  }
  return found.slice(0, REPORTED);
}

const MAY_BE_NON_FINITE = /float|complex/;

/** Position in C order of the element that is stored as number `position`. */
function rankInC({ order, shape }: TensorLayout, position: number): number {
  if (order === 'C') return position;
  const index: number[] = [];
  let rest = position;
  for (const dimension of shape) {
    index.push(rest % dimension);
    rest = Math.floor(rest / dimension);
  }
  return index.reduce((rank, i, axis) => rank * shape[axis]! + i, 0);
}
