/** Elements as binary64, whatever they are stored as: what reads them needs one loop instead of a dozen. */
import type { DType } from '../tensor/dtypes.ts';
import { decodeFloat16 } from '../tensor/float16.ts';
import { CHUNK } from './tally.ts';

/**
 * Gives `count` numbers (at most CHUNK) of the buffer from number `first` on; complex elements are two numbers each.
 * The result is valid until the next call.
 */
export type Widen = (first: number, count: number) => Float64Array;

/**
 * Prepares reading elements of a dtype from a buffer, little endian; undefined where they are no numbers. 64-bit integers
 * are rounded to the nearest binary64.
 */
export function openWidening(dtype: DType, buffer: ArrayBufferLike): Widen | undefined {
  const wide = new Float64Array(CHUNK);
  const copying = (from: ArrayLike<number> & { subarray(begin: number, end: number): ArrayLike<number> }) => {
    return (first: number, count: number) => {
      wide.set(from.subarray(first, first + count));
      return wide.subarray(0, count);
    };
  };
  const mapping = (numberAt: (index: number) => number) => (first: number, count: number) => {
    for (let i = 0; i < count; i++) wide[i] = numberAt(first + i);
    return wide.subarray(0, count);
  };
  switch (dtype) {
    case 'bool': {
      const bytes = new Uint8Array(buffer);
      return mapping((i) => (bytes[i] === 0 ? 0 : 1));
    }
    case 'int8':
      return copying(new Int8Array(buffer));
    case 'uint8':
      return copying(new Uint8Array(buffer));
    case 'int16':
      return copying(new Int16Array(buffer));
    case 'uint16':
      return copying(new Uint16Array(buffer));
    case 'int32':
      return copying(new Int32Array(buffer));
    case 'uint32':
      return copying(new Uint32Array(buffer));
    case 'int64': {
      const low = new Uint32Array(buffer);
      const high = new Int32Array(buffer);
      return mapping((i) => high[2 * i + 1]! * 2 ** 32 + low[2 * i]!); // rounded once: the product is exact
    }
    case 'uint64': {
      const words = new Uint32Array(buffer);
      return mapping((i) => words[2 * i + 1]! * 2 ** 32 + words[2 * i]!);
    }
    case 'float16': {
      const bits = new Uint16Array(buffer);
      const table = float16Table();
      return (first, count) => {
        for (let i = 0; i < count; i++) wide[i] = table[bits[first + i]!]!;
        return wide.subarray(0, count);
      };
    }
    case 'bfloat16': {
      const bits = new Uint16Array(buffer);
      const words = new Uint32Array(CHUNK);
      const floats = new Float32Array(words.buffer);
      return (first, count) => {
        for (let i = 0; i < count; i++) words[i] = bits[first + i]! << 16;
        wide.set(floats);
        return wide.subarray(0, count);
      };
    }
    case 'float32':
    case 'complex64':
      return copying(new Float32Array(buffer));
    case 'float64':
    case 'complex128': {
      const floats = new Float64Array(buffer);
      return (first, count) => floats.subarray(first, first + count);
    }
    case 'void16':
      return undefined;
  }
}

let float16s: Float32Array | undefined;

/** Every float16 by its bits. */
function float16Table(): Float32Array {
  float16s ??= Float32Array.from({ length: 65_536 }, (_, bits) => decodeFloat16(bits));
  return float16s;
}
