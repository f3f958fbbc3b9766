/** NumPy's own versions of the rules that measure distances. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { PYTHON } from './peers.ts';
import type { Model } from './settle.ts';

const PEER = fileURLToPath(new URL('../aggregate/strategies/distances_peer.py', import.meta.url));

export interface PeerCase {
  readonly models: readonly Model[];
  readonly weightings: readonly number[];
  /** The global model, for the clipped mean. */
  readonly model?: Model | undefined;
  /** Which rule, by its parameters. */
  readonly parameters: Readonly<Record<string, number>>;
}

/** All numbers of a model, one tensor behind the other. */
export const flat = (model: Model): Float64Array => Float64Array.from(model.flatMap((tensor) => [...tensor]));

/** What NumPy makes of the cases. */
export function askNumpy<T>(cases: readonly PeerCase[]): T[] {
  const header = cases.map(({ models, weightings, parameters }) => ({
    inputs: models.length,
    numbers: flat(models[0]!).length,
    weightings,
    ...parameters,
  }));
  const rows = cases.flatMap(({ models, model }) => (model === undefined ? models : [...models, model]));
  const { status, stdout, stderr } = spawnSync(PYTHON, [PEER], {
    input: Buffer.concat([
      Buffer.from(`${JSON.stringify({ cases: header })}\n`),
      ...rows.map((row) => new Uint8Array(flat(row).buffer)),
    ]),
    maxBuffer: 2 ** 28,
  });
  if (status !== 0) throw new Error(`NumPy failed: ${stderr}`);
  return `${stdout}`
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as T);
}
