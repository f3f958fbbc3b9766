import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { createServer as createHttp } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Client } from '../../src/node/client.ts';
import { networkFetch } from '../../src/node/network.ts';
import { makeCertificate } from '../helpers/certificate.ts';
import { HastyClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';
import { LeafServer } from '../helpers/leaf-server.ts';

const test = suite('network');
const certificate = makeCertificate();
if (certificate === undefined) console.log('SKIPPED (missing peer): own authorities, openssl');

test('through an HTTP proxy, with its password', async () => {
  const server = await LeafServer.start();
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const proxy = createHttp();
  proxy.on('connect', (request, near) => {
    asked.push(`${request.url} ${request.headers['proxy-authorization']}`);
    const far = connect(Number(new URL(server.url).port), '127.0.0.1', () => {
      near.write('HTTP/1.1 200 OK\r\n\r\n');
      near.pipe(far).pipe(near);
    });
    sockets.add(far).add(near as Socket);
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const { port } = proxy.address() as AddressInfo;
  const client = new Client(server.credentials, { network: { proxy: `http://me:word@127.0.0.1:${port}` } });
  await client.getRunDetails();
  await client.close();
  assert.is(asked[0], `${new URL(server.url).host} Basic ${Buffer.from('me:word').toString('base64')}`);
  for (const socket of sockets) socket.destroy();
  proxy.close();
  await server.close();
});

test('a client that is closed leaves no connection behind, also where the server would keep it', async () => {
  const run = { run_status: 'start', run_number: 1, round: 1, updates: 0, aggregation_target: 1 };
  const server = createHttp({ keepAliveTimeout: 600_000 }, (_, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(run));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const credentials = { server: `http://127.0.0.1:${port}`, id: 'i', session_token: 't', branch_id: 'b' };
  let open = 0;
  server.on('connection', (socket) => {
    open++;
    socket.on('close', () => open--);
  });
  const client = new Client(credentials, { network: { connectMs: 60_000 } });
  await client.getRunDetails();
  assert.is(open, 1);
  await client.close();
  for (let turn = 0; turn < 1000 && open > 0; turn++) await new Promise(setImmediate); // the other side hears it later
  assert.is(open, 0);
  server.close();
});

test('through a SOCKS proxy', async () => {
  const server = await LeafServer.start();
  let asked = 0;
  // RFC 1928 as far as it goes: no authentication, CONNECT, an address in whatever form.
  const proxy = createServer((near) => {
    near.once('data', () => {
      near.write(Uint8Array.of(5, 0));
      near.once('data', () => {
        asked++;
        const far = connect(Number(new URL(server.url).port), '127.0.0.1', () => {
          near.write(Uint8Array.of(5, 0, 0, 1, 127, 0, 0, 1, 0, 0));
          near.pipe(far).pipe(near);
        });
        far.on('error', () => {});
        near.on('error', () => {}).on('close', () => far.destroy());
      });
    });
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const { port } = proxy.address() as AddressInfo;
  const client = new Client(server.credentials, { network: { proxy: `socks5://127.0.0.1:${port}` } });
  await client.getRunDetails();
  await client.close();
  assert.ok(asked > 0);
  proxy.close();
  await server.close();
});

test('an own authority is believed when it is named; checks go off only with a warning', async () => {
  if (certificate === undefined) return;
  const { cert, key } = certificate;
  const server = createHttps({ cert, key }, (_, response) => response.end('{}'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const clock = new HastyClock();
  const stranger = new Client({ server: url, id: 'i', session_token: 't' }, { clock, network: {} });
  await failsWith('unavailable-tls', () => stranger.authenticate());
  await stranger.close();
  assert.is((await networkFetch({ ca: cert })(url)).status, 200);
  const warnings: string[] = [];
  const open = networkFetch({ verify: false }, (message) => warnings.push(message));
  assert.is((await open(url)).status, 200);
  assert.is(warnings.length, 1);
  server.closeAllConnections();
  server.close();
});

test('through a proxy that is reached by TLS itself, to a server with TLS', async () => {
  if (certificate === undefined) return;
  const { cert, key } = certificate;
  const server = createHttps({ cert, key }, (_, response) => response.end('inside'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const target = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const sockets = new Set<Socket>();
  let asked = 0;
  const proxy = createHttps({ cert, key });
  proxy.on('connect', (_, near) => {
    asked++;
    const far = connect((server.address() as AddressInfo).port, '127.0.0.1', () => {
      near.write('HTTP/1.1 200 OK\r\n\r\n');
      near.pipe(far).pipe(near);
    });
    for (const socket of [near as Socket, far]) sockets.add(socket.on('error', () => {}));
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  const response = await networkFetch({ proxy: url, ca: cert })(target);
  assert.is(await response.text(), 'inside');
  assert.is(asked, 1);
  // Neither of the two is believed unless its authority is named.
  assert.ok((await networkFetch({ proxy: url })(target).catch((error: unknown) => error)) instanceof Error);
  assert.is(asked, 1);
  for (const socket of sockets) socket.destroy();
  for (const one of [server, proxy]) {
    one.closeAllConnections();
    one.close();
  }
});

test('a server that asks for a certificate gets the one of the leaf, and nobody without it in', async () => {
  const own = makeCertificate();
  if (certificate === undefined || own === undefined) return;
  const seen: (string | undefined)[] = [];
  const options = { cert: certificate.cert, key: certificate.key, ca: own.cert };
  const server = createHttps(
    { ...options, requestCert: true, rejectUnauthorized: true },
    (request, response) => {
      seen.push((request.socket as TLSSocket).getPeerCertificate().fingerprint256);
      response.end();
    },
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const ca = certificate.cert;
  assert.is((await networkFetch({ ca, ...own })(url)).status, 200);
  assert.equal(seen, [new X509Certificate(own.cert).fingerprint256]);
  const clock = new HastyClock();
  const stranger = new Client({ server: url, id: 'i', session_token: 't' }, { clock, network: { ca } });
  await failsWith('unavailable-tls|unavailable-server', () => stranger.authenticate());
  await stranger.close();
  assert.is(seen.length, 1);
  server.closeAllConnections();
  server.close();
});

test('checks can be switched off and on while the client lives, loudly', async () => {
  if (certificate === undefined) return;
  const server = createHttps({ cert: certificate.cert, key: certificate.key }, (_, response) => {
    response
      .writeHead(401, { 'content-type': 'application/json' })
      .end('{"error":"x","code":"token-invalid"}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const credentials = { server: url, id: 'i', session_token: 't' };
  const client = new Client(credentials, { clock: new HastyClock() });
  await failsWith('unavailable-tls', () => client.getRunDetails());
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
  client.disableSslVerification();
  assert.match((await warned).message, /certificates are not checked/);
  await failsWith('token-invalid', () => client.getRunDetails());
  client.disableSslVerification(true);
  await failsWith('unavailable-tls', () => client.getRunDetails());
  await client.close();
  const own = new Client(credentials, { fetch: globalThis.fetch });
  assert.throws(
    () => own.disableSslVerification(),
    (error: unknown) => error instanceof TypeError,
  );
  await own.close();
  server.closeAllConnections();
  server.close();
});

test('a connection that does not come to stand is given up after connectMs', async () => {
  // Takes connections and says nothing: no TLS comes of it. Were there no limit, this test would not end.
  const sockets = new Set<Socket>();
  const silent = createServer((socket) => sockets.add(socket.on('error', () => {})));
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const arrived = once(silent, 'connection'); // perhaps later than it is given up
  const server = `https://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  const retry = { attempts: 1 };
  const credentials = { server, id: 'i', session_token: 't' };
  const client = new Client(credentials, { retry, network: { connectMs: 1 } });
  await failsWith('timeout', () => client.getRunDetails());
  await arrived;
  assert.is(sockets.size, 1);
  await client.close();
  for (const socket of sockets) socket.destroy();
  silent.close();
});

test('senseless options', () => {
  for (const options of [{ proxy: 'ftp://secret@x' }, { proxy: 'x' }, { cert: 'x' }, { connectMs: 0 }]) {
    assert.throws(
      () => networkFetch(options),
      (error: unknown) =>
        (error instanceof TypeError || error instanceof RangeError) && !error.message.includes('secret'),
    );
  }
});

test.run();
