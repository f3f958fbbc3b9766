import type { WeightsFormat } from '../tensor/layout.ts';
import { UsageError } from './exit.ts';

/** The formats by the names that `--format` takes. */
const FORMATS: readonly WeightsFormat[] = ['npy', 'npy-object', 'npz', 'safetensors', 'torch'];

/** What `--format` asks for. Throws UsageError. */
export function formatOption(name: string | undefined): WeightsFormat | undefined {
  if (name === undefined) return undefined;
  const format = FORMATS.find((known) => known === name);
  if (format === undefined) throw new UsageError(`--format ${name}: one of ${FORMATS.join(', ')}`);
  return format;
}
