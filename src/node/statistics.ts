import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { needsReorder, readAll, reorderInto } from '../aggregate/reorder.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { type DType, itemSize } from '../tensor/dtypes.ts';
import type { TensorLayout } from '../tensor/layout.ts';
import { fileScratch } from './scratch.ts';

/** What one pass over a tensor tells. Complex elements count by component, void elements have a digest only. */
export interface TensorStatistics {
  /** SHA-256 of the raw elements in C order, little endian; lower-case hexadecimal. */
  readonly sha256: string;
  /** Of the finite elements, as binary64; null where there are none. */
  readonly min: number | null;
  readonly max: number | null;
  /** Sum of the finite elements in binary64, in C order, divided by their number. */
  readonly mean: number | null;
  readonly zeros: number;
  readonly nan: number;
  readonly infinite: number;
}

/** Bytes read at a time; a multiple of every element size. */
const BLOCK = 1 << 20;

/**
 * Reads a tensor once, in constant memory, and tells its digest and statistics.
 *
 * @throws FileError when the source ends too early or there is no room to put Fortran order into C order
 */
export async function tensorStatistics(source: ByteSource, tensor: TensorLayout): Promise<TensorStatistics> {
  if (!needsReorder(tensor)) return read(source, tensor.byteOffset ?? 0, tensor);
  const scratch = await fileScratch(tmpdir())(tensor.byteLength);
  try {
    await reorderInto(source, tensor, scratch);
    return await read(scratch, 0, tensor);
  } finally {
    await scratch.close();
  }
}

async function read(source: ByteSource, offset: number, tensor: TensorLayout): Promise<TensorStatistics> {
  const { dtype, byteLength, byteOrder } = tensor;
  const component = dtype.startsWith('complex') ? itemSize(dtype) / 2 : itemSize(dtype);
  const decode = DECODERS[dtype];
  const hash = createHash('sha256');
  const block = new Uint8Array(Math.min(BLOCK, byteLength));
  const tally = { min: Infinity, max: -Infinity, sum: 0, finite: 0, zeros: 0, nan: 0, infinite: 0 };
  for (let at = 0; at < byteLength; at += BLOCK) {
    const bytes = block.subarray(0, Math.min(BLOCK, byteLength - at));
    await readAll(source, offset + at, bytes);
    if (byteOrder === 'big') turnAround(bytes, component);
    hash.update(bytes);
    if (decode === undefined) continue;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < bytes.byteLength; i += component) {
      const x = decode(view, i);
      if (Number.isFinite(x)) {
        tally.finite++;
        tally.sum += x;
        if (x < tally.min) tally.min = x;
        if (x > tally.max) tally.max = x;
        if (x === 0) tally.zeros++;
      } else if (Number.isNaN(x)) tally.nan++;
      else tally.infinite++;
    }
  }
  const { zeros, nan, infinite, finite } = tally;
  return {
    sha256: hash.digest('hex'),
    min: finite === 0 ? null : tally.min,
    max: finite === 0 ? null : tally.max,
    mean: finite === 0 ? null : tally.sum / finite,
    zeros,
    nan,
    infinite,
  };
}

type Decoder = (view: DataView, at: number) => number;

const float32: Decoder = (view, at) => view.getFloat32(at, true);
const float64: Decoder = (view, at) => view.getFloat64(at, true);

const DECODERS: Readonly<Record<DType, Decoder | undefined>> = {
  bool: (view, at) => (view.getUint8(at) === 0 ? 0 : 1),
  int8: (view, at) => view.getInt8(at),
  uint8: (view, at) => view.getUint8(at),
  int16: (view, at) => view.getInt16(at, true),
  uint16: (view, at) => view.getUint16(at, true),
  int32: (view, at) => view.getInt32(at, true),
  uint32: (view, at) => view.getUint32(at, true),
  int64: (view, at) => Number(view.getBigInt64(at, true)),
  uint64: (view, at) => Number(view.getBigUint64(at, true)),
  float16: (view, at) => decodeFloat16(view.getUint16(at, true)),
  bfloat16: (view, at) => decodeBfloat16(view.getUint16(at, true)),
  float32,
  float64,
  complex64: float32,
  complex128: float64,
  void16: undefined,
};

function decodeFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : Number.NaN;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

const word = new DataView(new ArrayBuffer(4));

function decodeBfloat16(bits: number): number {
  word.setUint32(0, bits << 16);
  return word.getFloat32(0);
}

function turnAround(bytes: Uint8Array, size: number): void {
  for (let at = 0; at < bytes.byteLength; at += size) bytes.subarray(at, at + size).reverse();
}
