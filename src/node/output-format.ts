import { extname } from 'node:path';
import type { WeightsFormat } from '../tensor/layout.ts';

/** Formats by the ends of names; `.npy` is told apart by what the file is to hold. */
const EXTENSIONS: ReadonlyMap<string, WeightsFormat> = new Map([
  ['.npz', 'npz'],
  ['.safetensors', 'safetensors'],
  ['.pt', 'torch'],
  ['.pth', 'torch'],
]);

/**
 * The format that the name of a file asks for, undefined when it does not say.
 *
 * @param isPlain a file called `.npy` is to hold one array, and no weighting
 */
export function formatOfName(path: string, isPlain: boolean): WeightsFormat | undefined {
  const extension = extname(path).toLowerCase();
  if (extension === '.npy') return isPlain ? 'npy' : 'npy-object';
  return EXTENSIONS.get(extension);
}
