// Finds the layout and takes the elements through two buffers of 1 MiB: one is read into while the other is used.
import { writeFileSync } from 'node:fs';
import { openFileSource, openWeights } from '../../dist/index.js';
import { contend } from '../peers/contend.mjs';
import { addElements, total } from './sum.mjs';

const BLOCK_BYTES = 1 << 20;
const buffers = [new Uint8Array(BLOCK_BYTES), new Uint8Array(BLOCK_BYTES)];

await contend(async ({ input, output }) => {
  const source = await openFileSource(input);
  const { layout } = await openWeights(source);
  const [{ byteOffset, byteLength }] = layout.tensors;
  const end = byteOffset + byteLength;
  const read = (at, buffer) =>
    at < end ? source.readInto(at, buffer.subarray(0, Math.min(BLOCK_BYTES, end - at))) : 0;
  const sums = new Float64Array(8);
  let reading = read(byteOffset, buffers[0]);
  for (let at = byteOffset, block = 0; at < end; block++) {
    const buffer = buffers[block % 2];
    const bytes = await reading;
    reading = read(at + bytes, buffers[(block + 1) % 2]);
    addElements(new Float32Array(buffer.buffer, 0, bytes / 4), sums);
    at += bytes;
  }
  await source.close();
  writeFileSync(output, String(total(sums)));
});
