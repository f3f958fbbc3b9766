import { extname } from 'node:path';
import { CambiumError } from '../errors.ts';
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

/** Ways to write that only one format has. */
export interface OutputForm {
  /** Deflate the arrays of an `npz`. Weights shrink by little (default false). */
  readonly compress?: boolean | undefined;
  /** Put the elements of an `npy-object` at multiples of 64 bytes, so that views of the file need no copy (default false). */
  readonly align?: boolean | undefined;
}

/** What was asked for of an output, and would be lost where it is one plain array. */
interface Kept {
  readonly isNamed?: boolean;
  readonly isWeighted?: boolean;
}

/** Throws CambiumError `output-format` when the format has no such form, or no room for what is asked for. */
export function checkForm(
  output: string,
  format: WeightsFormat,
  { compress, align, isNamed, isWeighted }: OutputForm & Kept,
): void {
  const refuse = (what: string) =>
    new CambiumError('output-format', `${output}: ${what}, and this is to be ${format}`);
  if (compress && format !== 'npz') throw refuse('only npz can be compressed');
  if (align && format !== 'npy-object') throw refuse('only npy-object can be aligned');
  if (isNamed && format === 'npy') throw refuse('a plain array has no name');
  if (isWeighted && format === 'npy') throw refuse('a plain array has no weighting');
}
