import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { integerOf, readSettings } from '../../src/cli/settings.ts';
import { failsWith } from '../helpers/errors.ts';

const test = suite('settings');
const folder = mkdtempSync(join(tmpdir(), 'cambium-settings-'));
const config = (text: string) => {
  const path = join(folder, 'config.json');
  writeFileSync(path, text);
  return path;
};

test.after(() => rmSync(folder, { recursive: true, force: true }));

test('option, then environment, then file', async () => {
  const path = config(
    '{ "port": 1, "host": "file", "publicUrl": "https://file", "corsOrigin": ["https://a", "https://b"] }',
  );
  process.env.CAMBIUM_PORT = '2';
  process.env.CAMBIUM_PUBLIC_URL = 'https://environment';
  try {
    assert.equal(await readSettings({ port: '3' }, path), {
      port: '3',
      publicUrl: 'https://environment',
      host: 'file',
      corsOrigin: 'https://a,https://b',
    });
  } finally {
    delete process.env.CAMBIUM_PORT;
    delete process.env.CAMBIUM_PUBLIC_URL;
  }
});

test('what holds a password may come from a file of its own', async () => {
  const path = join(folder, 'broker');
  writeFileSync(path, 'amqp://user:password@host\n');
  process.env.CAMBIUM_BROKER_FILE = path;
  process.env.CAMBIUM_HOST_FILE = path; // no secret
  try {
    assert.equal(await readSettings({}, undefined), { broker: 'amqp://user:password@host' });
    assert.equal(await readSettings({ broker: 'amqp://other' }, undefined), { broker: 'amqp://other' });
    process.env.CAMBIUM_BROKER_FILE = join(folder, 'missing');
    await failsWith('file-not-found', () => readSettings({}, undefined));
  } finally {
    delete process.env.CAMBIUM_BROKER_FILE;
    delete process.env.CAMBIUM_HOST_FILE;
  }
});

for (const [name, text] of [
  ['no JSON', '{'],
  ['no object', '[1]'],
  ['an unknown setting', '{ "prot": 1 }'],
] as const) {
  test(`refuses ${name}`, async () => {
    await failsWith('usage', () => readSettings({}, config(text)));
  });
}

test('refuses a file that is not there', async () => {
  await failsWith('file-not-found', () => readSettings({}, join(folder, 'absent.json')));
});

test('whole numbers within bounds', async () => {
  assert.is(integerOf('port', '0', 0, 65_535), 0);
  for (const text of ['', '-1', '1.5', '65536', '0x10', 'x']) {
    await failsWith('usage', () => integerOf('port', text, 0, 65_535));
  }
});

test.run();
