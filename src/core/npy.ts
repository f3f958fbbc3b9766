import {
  ANSWER_BYTES,
  MAX_DIMENSIONS,
  MAX_NPY_HEADER,
  NPY_HEADER_ROOM,
  READ_DONE,
  READ_NEED,
  TENSOR_SHAPE,
} from '../../assembly/abi.ts';
import type { Core } from './core.ts';
import {
  type ReadNeed,
  type ReadRefusal,
  readNeed,
  readRecord,
  readRefusal,
  type TensorRecord,
} from './records.ts';

/** No header with its prelude is longer, so no reader needs more of a file to know what it is. */
const MAX_PRELUDE = 12 + MAX_NPY_HEADER;

/** What the header of a .npy file says. `dtype` 0 is an object array, whose elements are a pickle. */
export interface NpyHeader {
  readonly kind: 'npy';
  readonly record: TensorRecord;
}

/**
 * Reads the header of a .npy file from its first bytes.
 *
 * @param bytes the begin of the file; what is not needed is not looked at
 */
export function readNpyHeader(
  core: Core,
  bytes: Uint8Array,
  fileLength: number,
): NpyHeader | ReadNeed | ReadRefusal {
  return core.scope(() => {
    const length = Math.min(bytes.byteLength, MAX_PRELUDE);
    const window = core.take(length);
    const out = core.take(ANSWER_BYTES + TENSOR_SHAPE + 8 * MAX_DIMENSIONS);
    core.bytes(window, length).set(bytes.subarray(0, length));
    const answer = core.view(out, ANSWER_BYTES);
    core.bytes(out, ANSWER_BYTES).fill(0);
    const status = core.exports.readNpyHeader(window, length, fileLength, out);
    if (status === READ_NEED) return readNeed(answer);
    if (status !== READ_DONE) return readRefusal(core, answer, status);
    return { kind: 'npy', record: readRecord(core, out + ANSWER_BYTES).record };
  });
}

/**
 * Writes the header of a .npy file (format 1.0, C order, little endian) as NumPy from 1.24 on does.
 *
 * @param dtype DTYPE_ of abi.ts, 0 for an object array
 */
export function writeNpyHeader(core: Core, dtype: number, shape: readonly number[]): Uint8Array {
  if (shape.length > MAX_DIMENSIONS) {
    throw new RangeError(`an array has at most ${MAX_DIMENSIONS} dimensions, not ${shape.length}`);
  }
  return core.scope(() => {
    const out = core.take(NPY_HEADER_ROOM);
    const length = core.exports.writeNpyHeader(out, dtype, shape.length, takeShape(core, shape));
    return core.bytes(out, length).slice();
  });
}

/** Puts a shape into the arena, as the writers of the core take it. */
export function takeShape(core: Core, shape: readonly number[]): number {
  const address = core.take(8 * shape.length);
  const view = core.view(address, 8 * shape.length);
  for (const [i, dimension] of shape.entries()) view.setFloat64(8 * i, dimension, true);
  return address;
}
