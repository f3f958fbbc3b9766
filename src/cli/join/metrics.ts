/**
 * What a program tells of the model: the file `{metrics}`, or lines on stdout, each a JSON object
 *
 *     {"metrics": {"loss": 0.31}, "mode": "train"}
 *
 * `mode` is `train` unless it says `test` or `non-federated`. The file may also be an array of these, or the bare object of
 * metrics. Of several with one mode the last counts. NaN and infinities may stand in it as Python writes them: they become texts.
 */
import { readFile } from 'node:fs/promises';
import { CambiumError } from '../../errors.ts';
import { fileError } from '../../node/file-errors.ts';
import type { MetricsMode } from '../../wire/cambium.ts';

export type Metrics = ReadonlyMap<MetricsMode, unknown>;

/** A longer line is no metrics, and is told in parts: a program that never ends one must not fill the memory. */
export const MAX_LINE = 1 << 16;

const MODES: ReadonlySet<unknown> = new Set<MetricsMode>(['train', 'test', 'non-federated']);

/** Metrics in a line of stdout; undefined where it is just a line. */
export function readMetricsLine(line: string): readonly [MetricsMode, unknown] | undefined {
  if (!line.startsWith('{') || line.length > MAX_LINE) return undefined;
  try {
    return entryOf(parse(line));
  } catch {
    return undefined;
  }
}

/**
 * The metrics that a program wrote into a file; none when there is no file.
 *
 * @throws CambiumError `metrics-invalid`; FileError
 */
export async function readMetricsFile(path: string): Promise<Metrics> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return new Map();
    throw fileError(cause, path, 'read');
  }
  let value: unknown;
  try {
    value = parse(text);
  } catch (cause) {
    throw new CambiumError('metrics-invalid', `${path}: the metrics are no JSON`, { cause });
  }
  const entries = (Array.isArray(value) ? value : [value]).map((item: unknown) => {
    const entry = entryOf(item);
    if (entry !== undefined) return entry;
    if (typeof item === 'object' && item !== null && !('metrics' in item)) return ['train', item] as const;
    throw new CambiumError(
      'metrics-invalid',
      `${path}: metrics are objects, {"metrics": {…}, "mode": "train"}`,
    );
  });
  return new Map(entries);
}

/** JSON, and what Python's writer makes of numbers that JSON has not. Throws SyntaxError. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    const strings = /"(?:[^"\\]|\\.)*"|-?Infinity|NaN/g;
    return JSON.parse(text.replace(strings, (found) => (found.startsWith('"') ? found : `"${found}"`)));
  }
}

function entryOf(value: unknown): readonly [MetricsMode, unknown] | undefined {
  if (typeof value !== 'object' || value === null || !('metrics' in value)) return undefined;
  const { metrics, mode = 'train' } = value as { metrics: unknown; mode?: unknown };
  return MODES.has(mode) ? [mode as MetricsMode, metrics] : undefined; // just looked up
}
