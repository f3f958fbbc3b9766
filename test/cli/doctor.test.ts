/** `cambium doctor` as a user runs it: what is well, and every fault with its code and what to do about it. */
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type CredentialsBody, paths } from '../../src/wire/cambium.ts';
import { makeCertificate } from '../helpers/certificate.ts';
import { aggregationId, BRANCH_ID, LeafServer } from '../helpers/leaf-server.ts';
import { answer, serve } from '../helpers/loopback.ts';
import { Harness } from '../server/harness.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

interface Check {
  readonly check: string;
  readonly status: string;
  readonly message: string;
  readonly remedy?: string;
  readonly code?: string;
}

const test = suite('doctor');
const folder = mkdtempSync(join(tmpdir(), 'cambium-doctor-'));
let harness: Harness;
let leaf: CredentialsBody;
let files = 0;

test.before(async () => {
  harness = await new Harness().start();
  leaf = (await harness.branch(1)).leaves[0]!;
});
test.after(async () => {
  await harness.end();
  rmSync(folder, { recursive: true, force: true });
});

const examine = (credentials: unknown, ...options: string[]) => examineAs({}, credentials, ...options);

function examineAs(user: { uid?: number; gid?: number }, credentials: unknown, ...options: string[]) {
  const path = join(folder, `leaf-${++files}.json`);
  writeFileSync(path, typeof credentials === 'string' ? credentials : JSON.stringify(credentials));
  const args = [CLI, 'doctor', '--json', '--credentials', path, ...options];
  return new Promise<{ code: number; healthy: boolean; checks: Check[]; stdout: string }>((resolve) => {
    execFile(process.execPath, args, user, (error, stdout) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, ...JSON.parse(stdout) });
    });
  });
}

test('all is well', async () => {
  const { code, healthy, checks, stdout } = await examine(leaf);
  assert.is(code, 0, stdout);
  assert.is(healthy, true);
  assert.equal(
    checks.map(({ check, status }) => `${check} ${status}`),
    [
      ...['credentials ok', 'address ok', 'dns ok', 'connection ok', 'tls skipped', 'clock ok', 'token ok'],
      ...['rights ok', 'broker skipped', 'disk ok'],
    ],
  );
  assert.not.match(stdout, new RegExp(leaf.session_token));
});

test('every fault has a code, something to do, and the exit code of its kind', async () => {
  const portal = await serve((_, response) => {
    response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Welcome to the hotel</html>');
  });
  const { session_token, leaf_session_token, ...half } = leaf;
  const wrong = { ...leaf, session_token: 'wrong', leaf_session_token: 'wrong' };
  const deaf = { ...leaf, broker_url: 'amqp://127.0.0.1:1' };
  const cases: readonly (readonly [string, unknown, readonly string[], string, string, number])[] = [
    ['no JSON', '{', [], 'credentials', 'credentials-invalid', 65],
    ['half', half, [], 'credentials', 'credentials-missing', 65],
    ['address', leaf, ['--server', 'nonsense'], 'address', 'usage', 2],
    ['a query', leaf, ['--server', 'http://127.0.0.1:1/?a=b'], 'address', 'usage', 2],
    ['a password', { ...leaf, server: 'http://u:p@127.0.0.1:1' }, [], 'address', 'credentials-invalid', 65],
    ['no address', { ...leaf, server: undefined }, [], 'address', 'credentials-missing', 65],
    ['name', leaf, ['--server', 'http://name.invalid'], 'dns', 'dns-unknown', 69],
    ['nobody there', leaf, ['--server', 'http://127.0.0.1:1'], 'connection', 'unavailable-server', 69],
    ['log-in page', leaf, ['--server', portal.url], 'token', 'protocol-not-json', 69],
    ['token', wrong, [], 'token', 'token-invalid', 77],
    ['broker', deaf, [], 'broker', 'unavailable-broker', 69],
    ['another broker', leaf, ['--broker', 'amqp://127.0.0.1:1'], 'broker', 'unavailable-broker', 69],
    ['no broker', { ...leaf, broker_url: 'broker' }, [], 'broker', 'broker-url', 2],
    ['folder', leaf, ['--folder', join(folder, 'none')], 'disk', 'file-not-found', 74],
  ];
  for (const [name, credentials, options, check, code, exitCode] of cases) {
    const found = await examine(credentials, ...options);
    const failed = found.checks.filter(({ status }) => status === 'failed');
    assert.equal(
      failed.map((one) => [one.check, one.code]),
      [[check, code]],
      `${name}: ${found.stdout}`,
    );
    assert.is(found.code, exitCode, name);
    assert.is(found.healthy, false);
    assert.ok(failed[0]!.remedy, name);
    assert.ok(![session_token, leaf_session_token].some((token) => found.stdout.includes(token)));
  }
  await portal.close();
});

test('certificates: each fault says what is wrong with them and what to do', async () => {
  const good = makeCertificate();
  const old = makeCertificate('127.0.0.1', -1);
  const strange = makeCertificate('127.0.0.2');
  if (good === undefined || old === undefined || strange === undefined) {
    console.log('SKIPPED (missing peer): certificates, openssl');
    return;
  }
  const cases = [
    ['nobody vouches for it', good, undefined, /--ca/],
    ['it has run out', old, old.cert, /renew/],
    ['it is for another address', strange, strange.cert, /another name/],
  ] as const;
  for (const [name, certificate, ca, remedy] of cases) {
    const server = createServer(certificate, (_, response) => response.end('{}'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const path = join(folder, `ca-${++files}.pem`);
    writeFileSync(path, ca ?? '');
    const found = await examine(leaf, '--server', url, ...(ca === undefined ? [] : ['--ca', path]));
    const failed = found.checks.filter(({ status }) => status === 'failed');
    assert.equal(
      failed.map((one) => [one.check, one.code]),
      [['tls', 'unavailable-tls']],
      `${name}: ${found.stdout}`,
    );
    assert.match(failed[0]!.remedy ?? '', remedy, name);
    assert.is(found.code, 69, name);
    server.closeAllConnections();
    server.close();
  }
});

test('a token that was revoked', async () => {
  const [revoked] = (await harness.branch(1)).leaves as [CredentialsBody];
  await harness.operate('DELETE', paths.leaf(revoked.id));
  const { checks, code } = await examine(revoked);
  const token = checks.find(({ check }) => check === 'token');
  assert.is(token?.code, 'token-revoked');
  assert.match(token?.remedy ?? '', /new credentials/);
  assert.is(code, 77);
});

test('room for the model: four times its size, where the leaf works', async () => {
  const server = await LeafServer.start();
  const { bavail, bsize } = statfsSync(folder);
  // Not that near to the edge: other programs use the disk too.
  const cases = [
    [Math.floor((bavail * bsize) / 8), 'ok', undefined, 0],
    [Math.ceil((bavail * bsize) / 2), 'failed', 'disk-full', 74],
  ] as const;
  for (const [byteLength, status, code, exitCode] of cases) {
    const id = aggregationId(1);
    server.overrides = {
      [`/branches/${BRANCH_ID}/run`]: (_, response) => {
        const counts = { run_number: 1, round: 2, updates: 0, aggregation_target: 2 };
        answer(response, 200, { run_status: 'start', ...counts, aggregation_id: id });
        return true;
      },
      [`/aggregations/${id}`]: (_, response) => {
        answer(response, 200, { aggregation_id: id, byte_length: byteLength });
        return true;
      },
    };
    const found = await examine(server.credentials, '--folder', folder);
    const disk = found.checks.find(({ check }) => check === 'disk');
    assert.equal([disk?.status, disk?.code, found.code], [status, code, exitCode], found.stdout);
    assert.match(disk?.message ?? '', / free in .*, .* needed/);
    if (code !== undefined) assert.match(disk?.remedy ?? '', /make room/);
  }
  await server.close();
});

test('a folder in which the leaf may not write', async () => {
  const closed = join(folder, 'closed');
  mkdirSync(closed);
  chmodSync(closed, 0o555);
  chmodSync(folder, 0o755);
  // The superuser may write everywhere.
  const nobody = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
  const found = await examineAs(nobody, leaf, '--folder', closed);
  const disk = found.checks.find(({ check }) => check === 'disk');
  assert.equal([disk?.status, disk?.code, found.code], ['failed', 'file-access', 74], found.stdout);
  assert.match(disk?.remedy ?? '', /right to write/);
});

test('a clock that is far off is a warning', async () => {
  const late = await serve((_, response) => {
    const date = new Date(Date.now() - 3_600_000).toUTCString();
    response
      .writeHead(401, { date, 'content-type': 'application/json' })
      .end('{"code":"token-invalid","message":"no"}');
  });
  const { checks } = await examine(leaf, '--server', late.url);
  const clock = checks.find(({ check }) => check === 'clock');
  assert.is(clock?.status, 'warning');
  assert.match(clock?.message ?? '', /ahead/);
  await late.close();
});

test.run();
