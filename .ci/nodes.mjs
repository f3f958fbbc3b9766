// The test suites on every Node that we promise: node .ci/nodes.mjs [pattern …], or only some versions with
// CAMBIUM_NODES=22,24. Others than the one at hand come from npm's `node` package into build/nodes/. The suites run
// against what is built.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Exact, so that a failure can be had again. */
const VERSIONS = { 20: '20.20.2', 22: '22.23.3', 24: '24.21.0' };

export const MAJORS = Object.keys(VERSIONS);

/** The path of a Node of a major version, installed when it is not there. Throws when npm cannot. */
export function nodeOf(major) {
  const version = VERSIONS[major];
  if (version === undefined)
    throw new Error(`there is no Node ${major} to test with; ${MAJORS.join(', ')} are`);
  if (process.version === `v${version}`) return process.execPath;
  const folder = join(root, 'build/nodes', version);
  const node = join(folder, 'node_modules/node/bin/node');
  if (!existsSync(node)) {
    mkdirSync(folder, { recursive: true });
    const options = ['--no-save', '--no-audit', '--no-fund', '--loglevel=error', '--prefix', folder];
    const done = spawnSync('npm', ['install', ...options, `node@${version}`], {
      cwd: folder,
      stdio: 'inherit',
    });
    if (done.status !== 0 || !existsSync(node)) throw new Error(`npm could not install node@${version}`);
  }
  return node;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const majors = process.env.CAMBIUM_NODES?.split(',') ?? MAJORS;
  const failed = majors.filter((major) => {
    const node = nodeOf(major);
    console.log(`\nNode ${VERSIONS[major]}`);
    // Suites start commands by name too.
    const env = { ...process.env, PATH: `${dirname(node)}${delimiter}${process.env.PATH}` };
    return (
      spawnSync(node, ['test/run.mjs', ...process.argv.slice(2)], { cwd: root, stdio: 'inherit', env })
        .status !== 0
    );
  });
  if (failed.length > 0) {
    console.error(`\nfailed on Node ${failed.join(', ')}`);
    process.exit(1);
  }
}
