import { MAX_DIMENSIONS, MAX_TENSORS, PICKLE_TEXT_LIMIT } from '../../assembly/abi.ts';
import { type Core, openCore } from '../core/core.ts';
import { writeNpyHeader } from '../core/npy.ts';
import { writePickle } from '../core/pickle-writer.ts';
import { DTYPES, itemSize } from '../tensor/dtypes.ts';
import { elementCount } from '../tensor/layout.ts';
import type { Encoding, TensorSpec, WeightsSpec } from './encoding.ts';

/**
 * Writes a weight file but for its elements: C order, little endian.
 *
 * 'npy' is one plain array, as NumPy from 1.24 on writes it; name and weighting have no place in it. 'npy-object' is
 * the array [weighting, [arrays]], byte for byte as NumPy 1.17 to 1.26 write it (payloads of a single byte
 * only with their `onlyByte`: assembly/pickle-writer.ts says why); every NumPy from 1.17 on reads it. A tensor with a name becomes a
 * [name, array] pair there, one without a plain array. 'safetensors' has the weighting in its metadata, and calls tensors
 * without a name `layer_0`, `layer_1`, … by their positions. 'npz' calls them so too, and has the weighting in the array
 * `weighting`; its checksums have to be sealed. 'torch', a state dict, is like 'npz' in all that; torch does not see the
 * weighting.
 *
 * @throws RangeError when a format cannot hold what is asked for
 */
export async function encodeWeights(spec: WeightsSpec): Promise<Encoding> {
  const lengths = spec.tensors.map(checkSpec);
  checkAlign(spec);
  // The writers of other containers are loaded when they are needed, as their readers are (open.ts).
  if (spec.format === 'safetensors') return (await import('./safetensors.ts')).encodeSafetensors(spec);
  if (spec.format === 'torch') return (await import('./torch-writer.ts')).encodeTorch(spec, lengths);
  const npz = spec.format === 'npz' ? await import('./npz-writer.ts') : undefined;
  const core = await openCore();
  try {
    if (npz !== undefined) return npz.encodeNpz(core, spec, lengths);
    if (spec.format === 'npy') return interleave(encodePlain(core, spec), lengths);
    if (spec.format === 'npy-object') return encodeObject(core, spec, lengths);
    throw new RangeError(`nothing can be written in the format ${spec.format}`);
  } finally {
    core.close();
  }
}

/** A file in which payload i stands behind piece i. */
function interleave(pieces: readonly Uint8Array[], lengths: readonly number[]): Encoding {
  const literals = [];
  const payloads = [];
  let offset = 0;
  for (const [i, bytes] of pieces.entries()) {
    literals.push({ offset, bytes });
    offset += bytes.byteLength;
    const byteLength = lengths[i];
    if (byteLength !== undefined) {
      payloads.push({ offset, byteLength });
      offset += byteLength;
    }
  }
  return { byteLength: offset, literals, payloads };
}

function encodePlain(core: Core, { tensors }: WeightsSpec): Uint8Array[] {
  const [tensor] = tensors;
  if (tensor === undefined || tensors.length > 1) {
    throw new RangeError(`a plain .npy file holds exactly one tensor, not ${tensors.length}`);
  }
  return [writeNpyHeader(core, DTYPES[tensor.dtype].code, tensor.shape)];
}

function encodeObject(core: Core, spec: WeightsSpec, lengths: readonly number[]): Encoding {
  const { weighting, tensors } = spec;
  if (weighting === null) throw new RangeError('an object array needs a weighting');
  const asFloat = (spec.weightingType ?? (Number.isSafeInteger(weighting) ? 'int' : 'float')) === 'float';
  if (!asFloat && !Number.isSafeInteger(weighting)) {
    throw new RangeError(`the weighting ${weighting} cannot be stored as an int: it is no safe integer`);
  }
  if (tensors.length > MAX_TENSORS) {
    throw new RangeError(`a weight file holds at most ${MAX_TENSORS} tensors, not ${tensors.length}`);
  }
  checkNames(tensors);
  const encoder = new TextEncoder();
  const isAligned = spec.align !== undefined;
  const { pieces, payloads } = writePickle(
    core,
    weighting,
    asFloat,
    tensors.map(({ name, dtype, shape, onlyByte }, i) => ({
      name: name === null ? null : encoder.encode(name),
      dtype: DTYPES[dtype].code,
      shape,
      byteLength: lengths[i]!,
      // A byte that is shared stands where it came first, not where it would be aligned.
      onlyByte: isAligned ? undefined : onlyByte,
    })),
    isAligned,
  );
  const header = writeNpyHeader(core, 0, [2]);
  const first = new Uint8Array(header.byteLength + pieces[0]!.byteLength);
  first.set(header);
  first.set(pieces[0]!, header.byteLength);
  return interleave([first, ...pieces.slice(1)], payloads);
}

/** Names that are read as what they are, and as different ones. */
function checkNames(tensors: readonly TensorSpec[]): void {
  const seen = new Set<string>();
  for (const { name } of tensors) {
    if (name === null) continue;
    if (seen.has(name)) throw new RangeError(`two tensors are called ${JSON.stringify(name)}`);
    if (/\p{Surrogate}/u.test(name)) {
      throw new RangeError(`the name ${JSON.stringify(name)} has no UTF-8 form`);
    }
    seen.add(name);
  }
}

function checkAlign({ format, align }: WeightsSpec): void {
  if (align === undefined) return;
  if (align !== 64) throw new RangeError(`align is 64 or left out, not ${align}`);
  if (format !== 'npy-object') throw new RangeError(`only npy-object can be aligned, not ${format}`);
}

/** Bytes of the elements of a tensor that can be written. */
function checkSpec({ name, dtype, shape, onlyByte }: TensorSpec): number {
  if (shape.length > MAX_DIMENSIONS) {
    throw new RangeError(`an array has at most ${MAX_DIMENSIONS} dimensions, not ${shape.length}`);
  }
  if (!shape.every((dimension) => Number.isSafeInteger(dimension) && dimension >= 0)) {
    throw new RangeError(`shape (${shape.join(', ')}) is not made of whole numbers from 0 on`);
  }
  const byteLength = elementCount(shape) * itemSize(dtype);
  // Readers, NumPy's too, take no shape that is too large but for a zero in it.
  const span = shape.reduce((product, dimension) => product * Math.max(dimension, 1), itemSize(dtype));
  if (!Number.isSafeInteger(span)) throw new RangeError(`shape (${shape.join(', ')}) is too large`);
  if (onlyByte !== undefined && (byteLength !== 1 || onlyByte !== (onlyByte & 0xff))) {
    throw new RangeError(`onlyByte is ${onlyByte}, of a tensor of ${byteLength} bytes`);
  }
  if (name !== null && new TextEncoder().encode(name).byteLength > PICKLE_TEXT_LIMIT) {
    throw new RangeError(`the name of a tensor has at most ${PICKLE_TEXT_LIMIT} bytes in UTF-8`);
  }
  return byteLength;
}
