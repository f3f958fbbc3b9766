// The arrays of a job: those of its files, in memory. By update, and in it by tensor.
import { writeFileSync } from 'node:fs';
import { openFileSource, readTensors } from '../../dist/index.js';
import { job } from '../peers/contend.mjs';

export const updates = await Promise.all(job.inputs.map(({ path }) => readUpdate(path)));
export const arrays = updates.map(({ tensors }) =>
  tensors.map(({ data }) => new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4)),
);
export const weightings = updates.map(({ weighting }) => weighting);

/** An update, its elements in arrays of their own, as training leaves them. */
async function readUpdate(path) {
  const source = await openFileSource(path);
  const { weighting, tensors } = await readTensors(source);
  await source.close();
  return { weighting, tensors: tensors.map((tensor) => ({ ...tensor, data: tensor.data.slice() })) };
}

/** Leaves the arrays of a result to the bench. */
export function writeResult(parts) {
  const bytes = parts.map((part) => new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
  writeFileSync(job.output, Buffer.concat(bytes));
}
