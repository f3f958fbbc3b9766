/**
 * The weight file: an object array [weighting, [arrays]] in a `.npy`.
 *
 *     .npy header with descr '|O' and shape (2,)      128 bytes from every NumPy since 1.14
 *     pickle of the array                             ends the file
 *
 * np.save writes pickle protocol 2 up to NumPy 1.16, 3 from 1.17 to 1.26, 4 (names under numpy._core, frames) from 2.0
 * on. In 3 and 4 each array is spelled as
 *
 *     numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b'b'), filled with
 *     (1, shape, dtype, is Fortran order, elements)
 *
 * so that the elements stand contiguously, and behind everything that explains them. Protocol 5, which np.save never
 * writes, has them before shape and dtype. Protocol 2 of Python 2 has them as a byte string; that of Python 3 as text,
 * where bytes above 7f take two: those files are refused by name.
 *
 * The weighting is an int, a float, a NumPy scalar or an array of one element. The list may be a tuple, may hold lists,
 * and may hold [name, array] pairs. Readers must not rely on numbers of the memo, on the alignment of elements, or on
 * one payload per array: equal short ones, and the same array met twice, are stored once. Shape and dtype of the header
 * are not those of the pickle by nature; NumPy believes the pickle, we want both to say (2,).
 *
 * The pickle is walked by the core (assembly/pickle.ts says how it stays safe); this file feeds it windows.
 */
import { type Core, openCore } from '../core/core.ts';
import { PICKLE_ARENA_BYTES, PICKLE_WINDOW_BYTES, PickleWalk } from '../core/pickle.ts';
import type { TensorRecord } from '../core/records.ts';
import { InternalError } from '../errors.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import type { Layout } from '../tensor/layout.ts';
import { type ReadOptions, tensorLayout } from './npy.ts';
import { formatError, refusalError } from './refusals.ts';

/** Opcodes between two payloads rarely take more, and a model of 200 tensors is read with 200 such windows. */
const WINDOW_BYTES = 256;

/** A walk that does not fit is begun again with four times the arena, up to here. */
const MAX_ARENA_BYTES = 1 << 30;

/**
 * The layout of a weight file.
 *
 * @param core an instance that is used for this alone: its whole arena is taken. It stays the caller's
 * @param header what the .npy header says
 */
export async function readObjectLayout(
  source: ByteSource,
  core: Core,
  header: TensorRecord,
  options: ReadOptions,
): Promise<Layout> {
  const { name: file, byteLength } = source;
  if (header.shape.length !== 1 || header.shape[0] !== 2) {
    throw formatError(
      'weights-form',
      `an object array of shape (${header.shape.join(', ')}${header.shape.length === 1 ? ',' : ''}); a weight file has (2,): a weighting and a list of arrays`,
      { file, offset: 0 },
    );
  }
  for (let arena = PICKLE_ARENA_BYTES, host = core; ; ) {
    const walk = new PickleWalk(host, header.byteOffset, byteLength);
    const weighting = await walkThrough(walk, source, header.byteOffset);
    if (weighting === null) {
      arena = Math.max(4 * arena, 4 * host.exports.memory.buffer.byteLength);
      if (arena > MAX_ARENA_BYTES) {
        throw formatError('pickle-limit', 'its pickle takes more than 1 GiB of memory to follow', { file });
      }
      host = await openCore(arena);
      continue;
    }
    const taken = walk.takeTensors();
    if (taken.kind === 'refused') throw refusalError(taken, file, taken.tensor);
    return {
      format: 'npy-object',
      weighting: weighting.value,
      weightingType: weighting.isFloat ? 'float' : 'int',
      tensors: nameTensors(taken.records, file).map(([record, name]) => tensorLayout(record, name, options)),
      byteLength,
    };
  }
}

/** Feeds the walk; null when its arena is too small. */
async function walkThrough(
  walk: PickleWalk,
  source: ByteSource,
  begin: number,
): Promise<{ value: number; isFloat: boolean } | null> {
  let need = { offset: begin, byteLength: 1 };
  let end = begin;
  let size = WINDOW_BYTES;
  for (;;) {
    // Behind a payload a small window will do; where one opcode follows the other, larger and larger ones.
    size = need.offset > end || end === begin ? WINDOW_BYTES : Math.min(2 * size, PICKLE_WINDOW_BYTES);
    const left = source.byteLength - need.offset;
    const length = Math.min(Math.max(size, need.byteLength), left);
    end = need.offset + length;
    const reading = source.readInto(need.offset, walk.window(length));
    const read = typeof reading === 'number' ? reading : await reading;
    if (read < length) {
      throw formatError('pickle-truncated', 'the file became shorter while it was read', {
        file: source.name,
        offset: need.offset + read,
      });
    }
    const step = walk.walk(length, need.offset);
    if (step.kind === 'done') return { value: step.weighting, isFloat: step.isFloat };
    if (step.kind === 'memory') return null;
    if (step.kind === 'refused') throw refusalError(step, source.name);
    if (step.offset + step.byteLength <= end && step.offset >= end - length) {
      throw new InternalError(
        'internal-walk',
        `the walk asks again for bytes that it has, at ${step.offset}`,
      );
    }
    need = step;
  }
}

/** Decodes the names. Two tensors of one name would make matching by name a matter of luck. */
function nameTensors(
  records: readonly TensorRecord[],
  file: string,
): readonly (readonly [TensorRecord, string | null])[] {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const seen = new Set<string>();
  return records.map((record, tensor) => {
    if (record.name === null) return [record, null];
    const offset = record.nameOffset;
    let name: string;
    try {
      name = decoder.decode(record.name);
    } catch {
      throw formatError('pickle-structure', 'its name is not UTF-8', { file, tensor, offset });
    }
    if (seen.has(name)) {
      throw formatError('weights-form', `another tensor is called ${JSON.stringify(name)} too`, {
        file,
        tensor,
        offset,
      });
    }
    seen.add(name);
    return [record, name];
  });
}
