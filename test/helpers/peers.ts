import { spawnSync } from 'node:child_process';

/** The interpreter that has Debian's packages; CAMBIUM_PYTHON names another one. */
export const PYTHON = process.env.CAMBIUM_PYTHON ?? '/usr/bin/python3';

/**
 * Whether this machine's Python has the module. If not, the caller's tests are left out: the runner counts the line
 * printed here, and with CI=true it makes the run fail.
 */
export function hasPythonModule(name: string): boolean {
  const found = spawnSync(PYTHON, ['-c', `import ${name}`], { stdio: 'ignore' }).status === 0;
  if (!found)
    console.log(`SKIPPED (missing peer): Python module ${name}; Debian: apt-get install python3-${name}`);
  return found;
}
