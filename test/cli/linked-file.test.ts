/** Files from links and into new places: whole or not at all, and never in the place of others. */
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { saveLinked } from '../../src/cli/linked-file.ts';
import { intoNewFile } from '../../src/cli/new-file.ts';
import { Http } from '../../src/transport/http.ts';
import { failsWith } from '../helpers/errors.ts';
import { serve } from '../helpers/loopback.ts';

const BYTES = Buffer.from('0123456789');
const sha256 = createHash('sha256').update(BYTES).digest('hex');
const { signal } = new AbortController();
const test = suite('linked-file');
let folder: string;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), 'cambium-linked-'));
});
test.after.each(() => rmSync(folder, { recursive: true }));

/** Saves a file from a server that answers so, one time after the other. */
async function save(answers: readonly ((response: ServerResponse) => void)[]): Promise<string> {
  const server = await serve((_, response) => answers[server.requests.length - 1]!(response));
  try {
    const http = new Http({ server: server.url, retry: { attempts: 2, baseMs: 0 } });
    const to = join(folder, 'file');
    await saveLinked(http, async () => ({ download_url: `${server.url}/file`, sha256 }), to, signal);
    return readFileSync(to, 'utf8');
  } finally {
    await server.close();
  }
}

const whole = (response: ServerResponse) => void response.end(BYTES);
const cut = (response: ServerResponse) => {
  response.writeHead(200, { 'content-length': BYTES.byteLength });
  response.write(BYTES.subarray(0, 5), () => response.destroy());
};

test('a file whose line breaks comes again from its beginning', async () => {
  assert.is(await save([cut, whole]), '0123456789');
  assert.equal(readdirSync(folder), ['file']);
});

test('what does not come, or comes with other bytes, leaves nothing', async () => {
  await failsWith('unavailable-server', () => save([cut, cut]));
  await failsWith('protocol-digest', () => save([(response) => void response.end('other bytes')]));
  assert.equal(readdirSync(folder), []);
});

test('a path is taken before the work, and given back when that fails', async () => {
  const path = join(folder, 'new');
  const value = await intoNewFile(path, 0o600, async () => {
    assert.ok(existsSync(path));
    writeFileSync(path, 'x');
    return 7;
  });
  assert.equal([value, readFileSync(path, 'utf8')], [7, 'x']);
  let begun = 0;
  const work = async () => {
    begun++;
    throw new Error('refused');
  };
  await failsWith('file-exists', () => intoNewFile(path, 0o600, work));
  await failsWith('file-not-found', () => intoNewFile(join(folder, 'no', 'new'), 0o600, work));
  assert.is(begun, 0);
  const other = join(folder, 'other');
  const error = await intoNewFile(other, 0o600, work).catch((cause: Error) => cause);
  assert.equal([begun, (error as Error).message, existsSync(other)], [1, 'refused', false]);
});

test.run();
