import * as assert from 'uvu/assert';
import { encodeWeights } from '../../src/formats/encode.ts';
import type { Encoding } from '../../src/formats/encoding.ts';
import { openWeights } from '../../src/formats/open.ts';
import { readTensors } from '../../src/formats/read.ts';
import { type WriteOptions, writeWeights } from '../../src/formats/write.ts';
import { memoryScratch, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import type { WeightsFormat } from '../../src/tensor/layout.ts';
import type { ModelUpdate, Tensor } from '../../src/tensor/tensor.ts';
import { sameBytes } from './bytes.ts';

/** The file of an update, written by `writeWeights`. */
export async function fileOf(update: ModelUpdate, options: WriteOptions): Promise<Uint8Array> {
  let sink = memorySink(0);
  const byteLength = await writeWeights((length) => (sink = memorySink(length)), update, options);
  assert.is(sink.bytes.byteLength, byteLength, 'the length that was announced');
  return sink.bytes;
}

/** What `writeWeights` wrote is read as the same again, and the layout says where the elements are. */
export async function comesBack(
  update: ModelUpdate,
  options: WriteOptions & { readonly format: WeightsFormat },
  /** What a format cannot tell; unless given nothing is lost. */
  asRead: (tensor: Tensor, position: number) => Tensor = (tensor) => tensor,
  /** False for a format that has an order of its own; then every tensor has a name. */
  ordered = true,
): Promise<Uint8Array> {
  const bytes = await fileOf(update, options);
  const opened = await openWeights(memorySource(bytes));
  assert.is(opened.layout.format, options.format);
  assert.is(opened.layout.byteLength, bytes.byteLength);
  const weights = opened.unpack === null ? opened : await opened.unpack({ scratch: memoryScratch });
  const read = await readTensors(weights.source, weights.layout);
  assert.ok(Object.is(read.weighting, update.weighting), `weighting ${read.weighting}`);
  assert.is(read.tensors.length, update.tensors.length);
  const found = new Map(read.tensors.map((tensor) => [tensor.name, tensor]));
  for (const [i, tensor] of update.tensors.entries()) {
    const { data, ...expected } = asRead(tensor, i);
    const { data: elements, ...rest } = ordered ? read.tensors[i]! : found.get(expected.name)!;
    assert.equal(rest, expected, `tensor ${i}`);
    sameBytes(elements, data, `tensor ${i}`);
  }
  return bytes;
}

/** Literals and payloads are in order and cover the file without gap or overlap. */
function covers({ byteLength, literals, payloads }: Encoding, tensors: number): void {
  const parts = [
    ...literals.map(({ offset, bytes }) => ({ offset, length: bytes.byteLength })),
    ...payloads.map(({ offset, byteLength: length }) => ({ offset, length })),
  ]
    .filter(({ length }) => length > 0)
    .sort((a, b) => a.offset - b.offset);
  let end = 0;
  for (const { offset, length } of parts) {
    assert.is(offset, end, 'a gap or an overlap');
    end += length;
  }
  assert.is(end, byteLength);
  assert.is(payloads.length, tensors);
}

/** The encoding of an update, checked. */
export async function encodingOf(
  update: ModelUpdate,
  options: WriteOptions & { readonly format: WeightsFormat },
): Promise<Encoding> {
  const tensors = update.tensors.map((tensor) =>
    tensor.data.byteLength === 1 ? { ...tensor, onlyByte: tensor.data[0] } : tensor,
  );
  const encoding = await encodeWeights({ ...options, weighting: update.weighting, tensors });
  covers(encoding, update.tensors.length);
  return encoding;
}
