// What a result is compared with: another one, element by element, and the exact mean of some elements in rational numbers.
import { readFileSync } from 'node:fs';
import { openFileSource, openWeights, readTensors } from '../../dist/index.js';
import { mulberry32 } from './inputs.mjs';

/** The float32 elements of a weight file, those of all tensors one behind the other. */
export async function readElements(path) {
  const source = await openFileSource(path);
  const { tensors } = await readTensors(source);
  await source.close();
  if (tensors.length === 1) return float32Of(tensors[0].data);
  return float32Of(Buffer.concat(tensors.map(({ data }) => data)));
}

/** The float32 elements of a file that holds nothing else. */
export function readBareElements(path) {
  return float32Of(readFileSync(path));
}

function float32Of(bytes) {
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/**
 * Throws unless all elements lie within `tolerance` of the expected ones.
 *
 * @returns how many differ, and by how much at most
 */
export function compareElements(name, actual, expected, tolerance) {
  let different = 0;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    if (Object.is(actual[i], expected[i])) continue;
    different++;
    largest = Math.max(largest, Math.abs(actual[i] - expected[i]));
  }
  if (actual.length !== expected.length || !(largest <= tolerance)) {
    throw new Error(`${name} has another result: ${different} elements differ, by up to ${largest}`);
  }
  return `${name}: ${different} of ${expected.length} elements are others, by at most ${largest}`;
}

const SAMPLES = 2000;

/** Throws unless `count` random elements of `result` are the exact means of those of the files, rounded once, ties to even. */
export async function checkExact(result, inputs, count = SAMPLES) {
  const uniform = mulberry32(11);
  const positions = Array.from({ length: count }, () => Math.floor(uniform() * result.length));
  const sums = positions.map(() => 0n);
  let total = 0n;
  for (const { path, weighting } of inputs) {
    const source = await openFileSource(path);
    const { layout } = await openWeights(source);
    const w = scaled(weighting);
    total += w;
    const bytes = new DataView(new ArrayBuffer(4));
    for (const [s, position] of positions.entries()) {
      await source.readInto(placeOf(layout.tensors, position), new Uint8Array(bytes.buffer));
      sums[s] += w * scaled(bytes.getFloat32(0, true));
    }
    await source.close();
  }
  for (const [s, position] of positions.entries()) {
    // |sum - mean·total| in units of 2^-(2·SHIFT), against half the distance to the neighbours; a tie goes to the even one.
    const mean = result[position];
    const [below, above, isEven] = neighbours(mean);
    const twice = 2n * sums[s];
    const low = total * (scaled(mean) + scaled(below));
    const high = total * (scaled(mean) + scaled(above));
    if (isEven ? twice < low || twice > high : twice <= low || twice >= high) {
      throw new Error(`element ${position} is ${mean}, which is not the exact mean`);
    }
  }
}

/** Every float32, and every weighting of a bench, is a multiple of 2^-SHIFT. */
const SHIFT = 160;

/** A binary64 number as a whole multiple of 2^-SHIFT. */
function scaled(value) {
  if (value === 0) return 0n;
  const exponent = Math.floor(Math.log2(Math.abs(value))) - 54;
  const digits = BigInt(value / 2 ** exponent);
  const shift = BigInt(SHIFT + exponent);
  if (shift < 0n && (digits >> -shift) << -shift !== digits) throw new Error(`${value} has too many digits`);
  return shift >= 0n ? digits << shift : digits >> -shift;
}

/** The finite float32 numbers next to one, and whether its last digit is even. */
function neighbours(value) {
  const view = new DataView(new ArrayBuffer(4));
  const at = (bits) => {
    view.setUint32(0, bits);
    return view.getFloat32(0);
  };
  const least = at(1);
  if (value === 0) return [-least, least, true];
  view.setFloat32(0, value);
  const bits = view.getUint32(0);
  const [inner, outer] = [at(bits - 1), at(bits + 1)];
  return value > 0 ? [inner, outer, bits % 2 === 0] : [outer, inner, bits % 2 === 0];
}

function placeOf(tensors, position) {
  let left = position;
  for (const { byteOffset, byteLength } of tensors) {
    if (left < byteLength / 4) return byteOffset + 4 * left;
    left -= byteLength / 4;
  }
  throw new RangeError(`there is no element ${position}`);
}
