/** Ten leaves in three branches, and the built command line around them. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { encodeUpdate } from '../../src/client/weights.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { Random } from '../helpers/random.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

/** How many leaves each branch has. */
export const BRANCHES = [4, 3, 3] as const;

/** Fractional, and of sizes between which plain sums lose bits. */
const WEIGHTINGS = [120, 0.1, 80.25, 2 ** -40, 1e6 + 1 / 3, 3, 0.7, 64.5, 1e-3, 999.999];

/** Runs a command that must succeed; what it says as JSON. */
export async function cambium<T>(...args: readonly string[]): Promise<T> {
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [CLI, ...args, '--json'], (error, stdout, stderr) => {
      if (error === null) resolve((stdout === '' ? {} : JSON.parse(stdout)) as T);
      else reject(new Error(`cambium ${args.join(' ')}: ${stderr}`));
    });
  });
}

/**
 * Ten update files of several types whose sums cancel and carry, by branch; the same for the same seed.
 *
 * @param size elements of the largest tensor
 */
export async function writeUpdates(
  folder: string,
  seed: number,
  size = 5000,
): Promise<readonly (readonly string[])[]> {
  const random = new Random(seed);
  const spread = () =>
    (random.integer(0, 1) === 0 ? -1 : 1) *
    (1 + random.integer(0, 1 << 20) / (1 << 20)) *
    2 ** random.integer(-60, 60);
  let next = 0;
  const branches: string[][] = [];
  for (const count of BRANCHES) {
    const files: string[] = [];
    for (let i = 0; i < count; i++) {
      const path = join(folder, `leaf-${next}.npy`);
      const tensors = [
        tensorOf(Float32Array.from({ length: size }, spread)),
        tensorOf(Float64Array.from({ length: 300 }, spread)),
        tensorOf(BigInt64Array.from({ length: 40 }, () => BigInt(Math.round(spread() % 2 ** 50)))),
        tensorOf(Float32Array.of(next)),
      ];
      writeFileSync(path, await encodeUpdate({ weighting: WEIGHTINGS[next]!, tensors }));
      files.push(path);
      next++;
    }
    branches.push(files);
  }
  assert.is(next, WEIGHTINGS.length);
  return branches;
}
