import { PICKLE_WRITER_BYTES, PICKLE_WRITER_ROOM } from '../../assembly/abi.ts';
import type { Core } from './core.ts';
import { takeShape } from './npy.ts';

/** One array to be written. */
export interface PickledTensor {
  /** UTF-8; null writes a plain array instead of a [name, array] pair. */
  readonly name: Uint8Array | null;
  /** DTYPE_ of abi.ts. */
  readonly dtype: number;
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** The only byte of a payload of one, where it is known. */
  readonly onlyByte: number | undefined;
}

/** b'b', which every file has before any payload. */
const KIND = 0x62;

/**
 * Writes the pickle of a weight file but for the elements: n + 1 pieces for n tensors, with payload i between piece i
 * and piece i + 1. A payload whose only byte another one before it had already has no bytes: it is shared.
 *
 * @param asFloat store the weighting as a float; an integer otherwise
 * @param aligned payloads stand at multiples of 64 bytes, if the pickle does
 */
export function writePickle(
  core: Core,
  weighting: number,
  asFloat: boolean,
  tensors: readonly PickledTensor[],
  aligned = false,
): { readonly pieces: Uint8Array[]; readonly payloads: readonly number[] } {
  const { exports } = core;
  // Lengths of 2^32 and more need an opcode of protocol 4. Protocol 3 is what every NumPy and Python 3 reads.
  const protocol = tensors.some(({ byteLength }) => byteLength >= 2 ** 32) ? 4 : 3;
  return core.scope(() => {
    const state = core.take(PICKLE_WRITER_BYTES);
    const room = core.take(PICKLE_WRITER_ROOM);
    const head = exports.startPickle(state, room, tensors.length, weighting, asFloat, protocol, aligned);
    const pieces: Uint8Array[] = [];
    const payloads: number[] = [];
    const bytesBefore = new Set([KIND]);
    let carried = core.bytes(room, head).slice();
    let offset = head;
    for (const { name, dtype, shape, byteLength, onlyByte = -1 } of tensors) {
      const piece = core.scope(() => {
        const nameLength = name?.byteLength ?? 0;
        const text = name === null ? 0 : core.take(nameLength);
        if (name !== null) core.bytes(text, nameLength).set(name);
        const out = core.take(PICKLE_WRITER_ROOM + nameLength);
        const dims = takeShape(core, shape);
        const length = exports.writeTensor(
          state,
          out,
          dtype,
          shape.length,
          dims,
          byteLength,
          text,
          nameLength,
          offset % 2 ** 32,
          onlyByte,
        );
        return core.bytes(out, length).slice();
      });
      const payload = bytesBefore.has(onlyByte) ? 0 : byteLength;
      if (onlyByte >= 0) bytesBefore.add(onlyByte);
      offset += piece.byteLength + payload;
      payloads.push(payload);
      pieces.push(joined(carried, piece));
      carried = new Uint8Array(0);
    }
    const tail = core.bytes(room, exports.endPickle(state, room)).slice();
    pieces.push(joined(carried, tail));
    return { pieces, payloads };
  });
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  if (a.byteLength === 0) return b;
  const both = new Uint8Array(a.byteLength + b.byteLength);
  both.set(a);
  both.set(b, a.byteLength);
  return both;
}
