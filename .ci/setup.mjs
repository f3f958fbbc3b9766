// Set-up for `npm start` and `npm test` on a machine with Node only: dependencies, build and, with --peers, the
// Debian packages that suites need. Node built-ins only. CAMBIUM_SETUP=0 leaves the system's packages alone.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CHROMIUM } from './chromium.mjs';

/** Debian packages by a command that fails when they are missing. */
const PEERS = [
  ...['numpy', 'pika', 'requests', 'torch'].map((name) => ({
    package: `python3-${name}`,
    check: ['/usr/bin/python3', '-c', `import ${name}`],
  })),
  { package: 'wabt', check: ['wasm2c', '--version'] },
  { package: 'gcc', check: ['gcc', '--version'] },
  { package: 'libc6-dev', check: ['test', '-e', '/usr/include/stdio.h'] },
  { package: 'chromium', check: ['test', '-x', CHROMIUM] },
  { package: 'rabbitmq-server', check: ['test', '-x', '/usr/lib/rabbitmq/bin/rabbitmq-server'] },
];

/** Asked by Debian's packages before they start a service: 101 says no. Tests start their own brokers. */
const SERVICE_POLICY = '/usr/sbin/policy-rc.d';

const root = fileURLToPath(new URL('..', import.meta.url));

function run(command, args, options = {}) {
  const done = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  return done.error === undefined && done.status === 0;
}

function must(what, command, args) {
  if (run(command, args)) return;
  console.error(`set-up failed: ${what} (${command} ${args.join(' ')})`);
  process.exit(1);
}

function dependenciesAreCurrent() {
  const installed = join(root, 'node_modules/.package-lock.json');
  return (
    existsSync(installed) && statSync(installed).mtimeMs >= statSync(join(root, 'package-lock.json')).mtimeMs
  );
}

function canUseApt() {
  if (process.env.CAMBIUM_SETUP === '0' || process.getuid?.() !== 0) return false;
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  return /^ID(_LIKE)?=.*(debian|ubuntu)/m.test(release);
}

if (!dependenciesAreCurrent()) must('dependencies', 'npm', ['ci', '--no-audit', '--no-fund']);
must('build', process.execPath, [join(root, '.ci/build.mjs')]);

if (process.argv.includes('--peers')) {
  const missing = PEERS.filter(({ check }) => !run(check[0], check.slice(1), { stdio: 'ignore' }));
  if (missing.length > 0 && canUseApt()) {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const quiet = ['-qq', '-o', 'Dpkg::Use-Pty=0'];
    const isPolicyOurs = !existsSync(SERVICE_POLICY);
    if (isPolicyOurs) writeFileSync(SERVICE_POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
    let done = run('apt-get', [...quiet, 'update'], { env });
    // One name that a distribution does not have (Ubuntu's Chromium is a snap) must not keep the others away.
    const names = missing
      .map((peer) => peer.package)
      .filter((name) => run('apt-cache', ['show', name], { stdio: 'ignore' }));
    console.log(`installing ${names.join(', ')}`);
    done &&= run('apt-get', [...quiet, 'install', '-y', '--no-install-recommends', ...names], { env });
    if (isPolicyOurs) rmSync(SERVICE_POLICY, { force: true });
    if (!done) console.error('apt-get failed; suites that need these packages will be skipped');
  }
}
