// The inputs: models of about 100 MB, weights normally distributed, sample counts 100 … 5000.
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { encodeWeights } from '../../dist/index.js';

const SEED = 7;

/** One tensor of 25 million parameters. */
export const ONE_TENSOR = [[25_000_000]];

/** 161 tensors, about 25 million parameters: a stem, four stages of bottleneck blocks, a classifier. */
export const RESIDUAL_NETWORK = residualNetwork();

function residualNetwork() {
  const list = [[64, 3, 7, 7], [64], [64]];
  let channels = 64;
  for (const [blocks, width] of [
    [3, 64],
    [4, 128],
    [6, 256],
    [3, 512],
  ]) {
    for (let block = 0; block < blocks; block++) {
      for (const shape of [
        [width, channels, 1, 1],
        [width, width, 3, 3],
        [width * 4, width, 1, 1],
      ]) {
        list.push(shape, [shape[0]], [shape[0]]);
      }
      if (block === 0) list.push([width * 4, channels, 1, 1], [width * 4], [width * 4]);
      channels = width * 4;
    }
  }
  list.push([1000, 2048], [1000]);
  return list;
}

/** Writes `count` weight files with tensors of the given shapes, and tells where their elements lie. */
export async function writeInputs(folder, count, shapes) {
  const tensors = shapes.map((shape) => ({ name: null, dtype: 'float32', shape }));
  const random = gaussian(SEED);
  // One long random sequence, entered at another place by each model: drawing 250 million numbers would take longer.
  const pool = Float32Array.from({ length: (1 << 20) + 7 }, () => 0.05 * random());
  const inputs = [];
  let payloads;
  for (let i = 0; i < count; i++) {
    const weighting = 100 + Math.floor(4900 * Math.abs(Math.sin(i + 1)));
    const path = join(folder, `model-${i}.npy`);
    const encoding = await encodeWeights({ format: 'npy-object', weighting, tensors });
    const file = openSync(path, 'w');
    for (const { offset, bytes } of encoding.literals) writeSync(file, bytes, 0, bytes.length, offset);
    let at = (i * 104_729) % pool.length;
    for (const { offset, byteLength } of encoding.payloads) {
      for (let done = 0; done < byteLength / 4; ) {
        const part = pool.subarray(at, Math.min(pool.length, at + byteLength / 4 - done));
        writeSync(
          file,
          new Uint8Array(part.buffer, part.byteOffset, part.byteLength),
          0,
          part.byteLength,
          offset + done * 4,
        );
        done += part.length;
        at = (at + part.length) % pool.length;
      }
    }
    closeSync(file);
    inputs.push({ path, weighting, byteLength: encoding.byteLength, tensors: tensors.length });
    payloads = encoding.payloads;
  }
  const parameters = payloads.reduce((sum, { byteLength }) => sum + byteLength / 4, 0);
  // Results differ from inputs in the width of the weighting, so their payloads are found by searching from the end.
  return {
    inputs,
    parameters,
    payloads: (file) =>
      payloads.map(({ offset, byteLength }) => ({
        offset: offset + file.length - inputs.at(-1).byteLength,
        byteLength,
      })),
  };
}

function gaussian(seed) {
  let state = seed;
  const uniform = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state + 1) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}
