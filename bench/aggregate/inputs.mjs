// The inputs: models of about 100 MB with sample counts 100 … 5000.
import { closeSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { encodeWeights } from '../../dist/index.js';

/** One tensor of 25 million parameters. */
export const ONE_TENSOR = [[25_000_000]];

/**
 * 113 tensors, 24.6 million parameters: a residual network of sixteen basic blocks with a projection in each of its four
 * stages, a little wider than usual so that it has the size of the one tensor.
 */
export const RESIDUAL_NETWORK = residualNetwork(68);

/** The same 113 tensors with `base` channels in the first stage: about 5,320 · base² parameters. */
export function residualNetwork(base) {
  const list = [[base, 3, 7, 7], [base], [base]];
  let channels = base;
  for (const [blocks, width] of [
    [3, base],
    [4, 2 * base],
    [6, 4 * base],
    [3, 8 * base],
  ]) {
    for (let block = 0; block < blocks; block++) {
      list.push([width, channels, 3, 3], [width], [width], [width, width, 3, 3], [width], [width]);
      if (block === 0) list.push([width, channels, 1, 1], [width], [width]);
      channels = width;
    }
  }
  list.push([1000, channels], [1000]);
  return list;
}

/** Kinds of data, each a function of uniform random numbers. */
export const DATA = {
  ordinary: (uniform) => 0.05 * Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
  'heavy tails': (uniform) => Math.tan(3.14 * (uniform() - 0.5)) ** 3,
};

/** Whole numbers of samples, as leaves have them. */
export const samples = (i) => 100 + Math.floor(4900 * Math.abs(Math.sin(i + 1)));

/** Writes `count` weight files with tensors of the given shapes, into a folder that is made. */
export async function writeInputs(folder, count, shapes, draw = DATA.ordinary) {
  mkdirSync(folder, { recursive: true });
  const tensors = shapes.map((shape) => ({ name: null, dtype: 'float32', shape }));
  const uniform = mulberry32(7);
  // One long random sequence, entered at another place by each model: drawing 250 million numbers would take longer.
  const pool = Float32Array.from({ length: (1 << 20) + 7 }, () => draw(uniform));
  const inputs = [];
  for (let i = 0; i < count; i++) {
    const weighting = samples(i);
    const path = join(folder, `model-${i}.npy`);
    const encoding = await encodeWeights({ format: 'npy-object', weighting, tensors });
    const file = openSync(path, 'w');
    const write = (bytes, offset) => writeSync(file, bytes, 0, bytes.length, offset);
    for (const { offset, bytes } of encoding.literals) write(bytes, offset);
    let at = (i * 104_729) % pool.length;
    for (const { offset, byteLength } of encoding.payloads) {
      for (let done = 0; done < byteLength / 4; ) {
        const part = pool.subarray(at, Math.min(pool.length, at + byteLength / 4 - done));
        write(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), offset + done * 4);
        done += part.length;
        at = (at + part.length) % pool.length;
      }
    }
    closeSync(file);
    inputs.push({ path, leaf: `model-${i}`, weighting, byteLength: encoding.byteLength });
  }
  return inputs;
}

/** Weight files of zeros that take no room on the disk. */
export async function writeSparseInputs(folder, count, shapes) {
  mkdirSync(folder, { recursive: true });
  const tensors = shapes.map((shape) => ({ name: null, dtype: 'float32', shape }));
  const inputs = [];
  for (let i = 0; i < count; i++) {
    const path = join(folder, `model-${i}.npy`);
    const { byteLength, literals } = await encodeWeights({
      format: 'npy-object',
      weighting: samples(i),
      tensors,
    });
    const file = openSync(path, 'w');
    for (const { offset, bytes } of literals) writeSync(file, bytes, 0, bytes.length, offset);
    ftruncateSync(file, byteLength);
    closeSync(file);
    inputs.push({ path, leaf: `model-${i}`, byteLength });
  }
  return inputs;
}

/** At least 0 and below 1, always the same numbers. */
export function mulberry32(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
