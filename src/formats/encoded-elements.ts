/** What has to be read of an encoded update before, or instead of, its elements: indices looked over, all elements decoded. */
import { openStrategies } from '../core/core.ts';
import type { ByteSource, Scratch } from '../tensor/bytes.ts';
import { type EncodedParts, elementCount, type Layout, type TensorLayout } from '../tensor/layout.ts';
import { Decoder, MARKED_PAIRS } from './decode.ts';
import { readExactly } from './exact.ts';
import { formatError } from './format-error.ts';
import { unpackBehind } from './unpack.ts';
import type { IndexOptions, UnpackOptions, Weights } from './weights.ts';

/** Elements that are decoded, or indices that are looked over, at a time. */
const PIECE = 65_536;

const LIMIT = 'encoded-limit';

/** Looks over the indices of top-k. @throws FormatError `encoded-indices`, `encoded-limit`; the reason of `signal` */
export async function indexEncoded(
  source: ByteSource,
  layout: Layout,
  { maxByteLength = Number.POSITIVE_INFINITY, signal }: IndexOptions,
): Promise<Layout> {
  // A sparse tensor may stand for any number of elements in a few bytes.
  const byteLength = layout.tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
  if (byteLength > maxByteLength) {
    throw formatError(LIMIT, `its elements take ${byteLength} bytes; ${maxByteLength} are allowed`, {
      file: source.name,
    });
  }
  const tensors: TensorLayout[] = [];
  for (const [i, tensor] of layout.tensors.entries()) {
    const { parts } = tensor;
    const marks = parts?.encoding === 'top-k' ? await markPairs(source, tensor, parts, i, signal) : null;
    tensors.push(parts === undefined ? tensor : { ...tensor, parts: { ...parts, marks } });
  }
  return { ...layout, tensors };
}

/** Checks that indices ascend and stay within the tensor, and keeps one of each `MARKED_PAIRS`. */
async function markPairs(
  source: ByteSource,
  { name, shape }: TensorLayout,
  { offsets, pairs }: EncodedParts,
  position: number,
  signal: IndexOptions['signal'],
): Promise<Uint32Array> {
  const [indicesAt] = offsets as [number];
  const total = elementCount(shape);
  const marks = new Uint32Array(Math.ceil(pairs / MARKED_PAIRS));
  const indices = new Uint32Array(Math.min(PIECE, pairs)); // whole marks: PIECE is a multiple of MARKED_PAIRS
  let last = -1;
  for (let first = 0; first < pairs; first += PIECE) {
    signal?.throwIfAborted();
    const count = Math.min(PIECE, pairs - first);
    const bytes = new Uint8Array(indices.buffer, 0, 4 * count);
    await readExactly(source, indicesAt + 4 * first, bytes, 'encoded-part', position);
    for (let i = 0; i < count; i++) {
      const index = indices[i]!;
      if (index <= last || index >= total) {
        const what = index <= last ? `${index} comes after ${last}` : `${index} is beyond ${total} elements`;
        throw formatError('encoded-indices', `indices must ascend and stay within the tensor: ${what}`, {
          file: source.name,
          tensor: name ?? position,
          offset: indicesAt + 4 * (first + i),
        });
      }
      last = index;
      if (i % MARKED_PAIRS === 0) marks[(first + i) / MARKED_PAIRS] = index;
    }
  }
  return marks;
}

/** Decodes all elements into scratch room. @throws FormatError as `indexEncoded`; what the scratch room throws */
export async function unpackEncoded(
  source: ByteSource,
  layout: Layout,
  options: UnpackOptions,
): Promise<Weights> {
  const { tensors } = await indexEncoded(source, layout, { signal: options.signal });
  const core = await openStrategies(4 * PIECE + 16 + Decoder.arenaBytes(2 * PIECE));
  try {
    const out = core.take(4 * PIECE);
    const decoder = new Decoder(core, 2 * PIECE);
    const fill = async (tensor: number, scratch: Pick<Scratch, 'write'>, place: number) => {
      const { parts, shape } = tensors[tensor]!;
      const total = elementCount(shape);
      for (let start = 0; start < total; start += PIECE) {
        options.signal?.throwIfAborted();
        const count = Math.min(PIECE, total - start);
        await decoder.decode(source, [{ parts, byteOffset: 0, itemSize: 4, start, count, out }]);
        await scratch.write(place + 4 * start, core.bytes(out, 4 * count));
      }
    };
    const unpacked = await unpackBehind(source, layout, options, { code: LIMIT, fill });
    const plain = unpacked.layout.tensors.map((tensor) => ({ ...tensor, parts: undefined }));
    return { source: unpacked.source, layout: { ...unpacked.layout, tensors: plain }, unpack: null };
  } finally {
    core.close();
  }
}
