// What one writes without a library: the inputs one by one, sums in a Float64Array, one division, one rounding. Finding
// the arrays in the pickle is left to Cambium; the loop over the elements is what is compared.
import { readFileSync, writeFileSync } from 'node:fs';
import { encodeWeights, openFileSource, openWeights } from '../../dist/index.js';
import { contend, job } from '../peers/contend.mjs';

const { inputs, output } = job;
await contend(async () => {
  let sums;
  let total = 0;
  let tensors;
  for (const { path, weighting } of inputs) {
    const source = await openFileSource(path);
    const { layout } = await openWeights(source);
    await source.close();
    tensors = layout.tensors;
    const file = readFileSync(path);
    sums ??= tensors.map(({ byteLength }) => new Float64Array(byteLength / 4));
    for (const [i, { byteOffset, byteLength }] of tensors.entries()) {
      const start = file.byteOffset + byteOffset;
      const x = new Float32Array(file.buffer.slice(start, start + byteLength));
      const sum = sums[i];
      for (let j = 0; j < x.length; j++) sum[j] += weighting * x[j];
    }
    total += weighting;
  }
  const encoding = await encodeWeights({ format: 'npy-object', weighting: total, tensors });
  const result = new Uint8Array(encoding.byteLength);
  for (const { offset, bytes } of encoding.literals) result.set(bytes, offset);
  for (const [i, { offset, byteLength }] of encoding.payloads.entries()) {
    const mean = new Float32Array(byteLength / 4);
    const sum = sums[i];
    for (let j = 0; j < mean.length; j++) mean[j] = sum[j] / total;
    result.set(new Uint8Array(mean.buffer), offset);
  }
  writeFileSync(output, result);
});
