import { type Core, openCore } from '../core/core.ts';
import { PICKLE_ARENA_BYTES, PICKLE_WINDOW_BYTES, PickleWalk, type WalkedWeighting } from '../core/pickle.ts';
import { InternalError } from '../errors.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { readExactly } from './exact.ts';
import { formatError, refusalError } from './format-error.ts';

/** Opcodes between two payloads rarely take more, and a model of 200 tensors is read with 200 such windows. */
const WINDOW_BYTES = 256;

/**
 * Room of a first walk, enough for a thousand tensors. An instance of the core is wiped behind each job: with all of its
 * arena, that would take longer than the walk does.
 */
const USUAL_BYTES = 512 << 10;

/** A walk that does not fit is begun again with all of the arena, then with four times the arena, up to here. */
const MAX_ARENA_BYTES = 1 << 30;

/** A part of a file that must be one pickle. */
interface PicklePlace {
  readonly begin: number;
  readonly end: number;
  /** Whether a torch archive holds it, or a weight file. */
  readonly isTorch: boolean;
}

/**
 * Walks over a pickle by feeding the core windows of it; what the walk has found is to be taken from it. Nothing is
 * executed (assembly/pickle.ts says how).
 *
 * @param core an instance that is used for this alone: its whole arena is taken. It stays the caller's
 */
export async function walkPickle(
  source: ByteSource,
  core: Core,
  place: PicklePlace,
): Promise<{ readonly walk: PickleWalk; readonly weighting: WalkedWeighting }> {
  for (let arena = PICKLE_ARENA_BYTES, host = core, most = USUAL_BYTES; ; ) {
    const walk = new PickleWalk(host, place.begin, place.end, place.isTorch, most);
    const weighting = await walkThrough(walk, source, place);
    if (weighting !== null) return { walk, weighting };
    if (most === USUAL_BYTES) {
      most = Number.POSITIVE_INFINITY;
      continue;
    }
    arena = Math.max(4 * arena, 4 * host.exports.memory.buffer.byteLength);
    if (arena > MAX_ARENA_BYTES) {
      throw formatError('pickle-limit', 'its pickle takes more than 1 GiB of memory to follow', {
        file: source.name,
      });
    }
    host = await openCore(arena);
  }
}

/** Feeds the walk; null when its arena is too small. */
async function walkThrough(
  walk: PickleWalk,
  source: ByteSource,
  { begin, end: pickleEnd }: PicklePlace,
): Promise<WalkedWeighting | null> {
  let need = { offset: begin, byteLength: 1 };
  let end = begin;
  let size = WINDOW_BYTES;
  for (;;) {
    // Behind a payload a small window will do; where one opcode follows the other, larger and larger ones.
    size = need.offset > end || end === begin ? WINDOW_BYTES : Math.min(2 * size, PICKLE_WINDOW_BYTES);
    const left = pickleEnd - need.offset;
    const length = Math.min(Math.max(size, need.byteLength), left);
    end = need.offset + length;
    await readExactly(source, need.offset, walk.window(length), 'pickle-truncated');
    const step = walk.walk(length, need.offset);
    if (step.kind === 'done') return step;
    if (step.kind === 'memory') return null;
    if (step.kind === 'refused') throw await refusalError(step, source.name);
    if (step.offset + step.byteLength <= end && step.offset >= end - length) {
      throw new InternalError(
        'internal-walk',
        `the walk asks again for bytes that it has, at ${step.offset}`,
      );
    }
    need = step;
  }
}

/** Decodes the names of tensors. Two tensors of one name would make matching by name a matter of luck. */
export function decodeNames(
  records: readonly { readonly name: Uint8Array | null; readonly nameOffset: number }[],
  file: string,
): readonly (string | null)[] {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const seen = new Set<string>();
  return records.map((record, tensor) => {
    if (record.name === null) return null;
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
    return name;
  });
}
