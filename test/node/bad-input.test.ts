/**
 * What goes wrong at a leaf, and what its user is told: a typed error with a code that stays, a sentence that says where
 * and what to do, no token in it, and nothing half done on the disk.
 */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeUpdate } from '../../src/client/weights.ts';
import {
  type CambiumError,
  ExchangeError,
  FileError,
  FormatError,
  ProtocolError,
  RefusedError,
} from '../../src/errors.ts';
import { Client } from '../../src/node/client.ts';
import { fileError } from '../../src/node/file-errors.ts';
import { openFileSink, openFileSource } from '../../src/node/files.ts';
import { openPartialSink } from '../../src/node/partial-files.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { HastyClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';
import { aggregationId, LEAF_ID, LeafServer } from '../helpers/leaf-server.ts';
import { answer, refuse } from '../helpers/loopback.ts';

const A = aggregationId(1);
const UPDATE = { weighting: 3, tensors: [tensorOf(Float32Array.of(1, 2, 3))] };

interface Scene {
  readonly server: LeafServer;
  readonly client: Client;
  readonly folder: string;
  /** Lets all requests below a path be answered by a page. */
  page(path: string, status: number, body: string, headers?: Record<string, string>): void;
}

interface Case {
  readonly name: string;
  readonly code: string;
  readonly kind: new (...args: never[]) => CambiumError;
  /** What the sentence must say: where it is, and what to do. */
  readonly says: RegExp;
  readonly work: (scene: Scene) => Promise<unknown>;
  /** What else must hold of the error. */
  readonly also?: (error: CambiumError) => void;
}

const portal = '<html><body>Welcome! Please log in to this network.</body></html>';

const CASES: readonly Case[] = [
  {
    name: 'a token that the server does not know',
    code: 'token-invalid',
    kind: RefusedError,
    says: /token-invalid/,
    work: ({ client, server }) => {
      server.overrides['/leaves/me'] = (_, response) => {
        refuse(response, 401, 'token-invalid');
        return true;
      };
      return client.authenticate();
    },
    also: (error) => assert.is((error as RefusedError).status, 401),
  },
  {
    name: 'the page of a captive portal in place of JSON',
    code: 'protocol-not-json',
    kind: ProtocolError,
    says: /answered 200 with text\/html instead of JSON; is this the address .*, and is there a log-in page in between\?$/,
    work: ({ client, page }) => {
      page('/', 200, portal);
      return client.authenticate();
    },
    also: (error) => assert.match((error as ProtocolError).preview ?? '', /Please log in to this network/),
  },
  {
    name: 'a portal that leads elsewhere',
    code: 'protocol-redirect',
    kind: ProtocolError,
    says: /redirected to http:\/\/portal\.example\/login; give the final address as the server$/,
    work: ({ client, page }) => {
      page('/', 302, '', { location: 'http://portal.example/login?token=secret' });
      return client.authenticate();
    },
  },
  {
    name: 'a portal that answers for the notices',
    code: 'protocol-not-events',
    kind: ProtocolError,
    says: /instead of an event stream; is there a log-in page in between\?$/,
    work: ({ client, page }) => {
      page(`/leaves/${LEAF_ID}/notices`, 200, portal);
      return client.queue.get();
    },
  },
  ...['memory', 'a file'].map(
    (into): Case => ({
      name: `a 404 page at the download URL, into ${into}`,
      code: 'protocol-download',
      kind: ProtocolError,
      says: /\/files\/[-0-9]+: the download link gave no file: answered 404 with text\/html/,
      work: ({ client, server, page, folder }) => {
        server.aggregations.set(A, Buffer.from('x'));
        page('/files/', 404, '<Error>NoSuchKey</Error>');
        return into === 'memory' ? client.fileDownload(A) : client.fileDownload(A, { folder });
      },
      also: (error) => assert.is((error as ProtocolError).preview, '<Error>NoSuchKey</Error>'),
    }),
  ),
  {
    name: 'an aggregation that is an empty file',
    code: 'format-empty',
    kind: FormatError,
    says: /aggregation [-0-9]+: the server's file is empty/,
    work: ({ client, server, folder }) => {
      server.aggregations.set(A, Buffer.alloc(0));
      return client.fileDownload(A, { folder });
    },
  },
  {
    name: 'an empty file to upload',
    code: 'format-empty',
    kind: FormatError,
    says: /empty\.npy: the file is empty$/,
    work: async ({ client, folder }) => {
      await writeFile(join(folder, 'empty.npy'), '');
      return client.fileUpload(join(folder, 'empty.npy'));
    },
  },
  {
    name: 'a file to upload that is no weight file',
    code: 'format-unknown',
    kind: FormatError,
    says: /notes\.npy: not a weight file/,
    work: async ({ client, folder }) => {
      await writeFile(join(folder, 'notes.npy'), 'remember the milk');
      return client.fileUpload(join(folder, 'notes.npy'));
    },
  },
  {
    name: 'a file to upload that is cut',
    code: 'npy-data-truncated|pickle-truncated|pickle-cut',
    kind: FormatError,
    says: /cut\.npy/,
    work: async ({ client, folder }) => {
      await writeFile(join(folder, 'cut.npy'), (await encodeUpdate(UPDATE)).subarray(0, -9));
      return client.fileUpload(join(folder, 'cut.npy'));
    },
  },
  {
    name: 'a file to upload that does not exist',
    code: 'file-not-found',
    kind: FileError,
    says: /^cannot read .*none\.npy: there is no such file or folder$/,
    work: ({ client, folder }) => client.fileUpload(join(folder, 'none.npy')),
  },
  {
    name: 'a disk that is full',
    code: 'disk-full',
    kind: FileError,
    says: /^cannot write .*\.npy: the disk is full$/,
    work: async ({ server, folder }) => {
      server.aggregations.set(A, Buffer.from(await encodeUpdate(UPDATE)));
      const client = new Client(server.credentials, { files: diskOf(0) });
      try {
        return await client.fileDownload(A, { folder });
      } finally {
        await client.close();
      }
    },
  },
  {
    name: 'a disk that fills up when much is there: it gets its room back',
    code: 'disk-full',
    kind: FileError,
    says: /^cannot write .*\.npy: the disk is full$/,
    work: async ({ server, folder }) => {
      const tensors = [tensorOf(new Float32Array(1 << 20))];
      server.aggregations.set(A, Buffer.from(await encodeUpdate({ weighting: 1, tensors })));
      const client = new Client(server.credentials, { files: diskOf(2 << 20) });
      try {
        return await client.fileDownload(A, { folder });
      } finally {
        await client.close();
      }
    },
  },
  {
    name: 'a folder that is not there',
    code: 'file-not-found',
    kind: FileError,
    says: /no such file or folder$/,
    work: async ({ client, server, folder }) => {
      server.aggregations.set(A, Buffer.from(await encodeUpdate(UPDATE)));
      return client.fileDownload(A, { folder: join(folder, 'none') });
    },
  },
  {
    name: 'a folder that cannot be written',
    // Not even by root, on Linux; which of the two the kernel says depends on how it is mounted.
    code: process.platform === 'linux' ? 'file-access' : 'file-not-found',
    kind: FileError,
    says: /permission|not permitted|read-only|no such/,
    work: async ({ client, server }) => {
      server.aggregations.set(A, Buffer.from(await encodeUpdate(UPDATE)));
      return client.fileDownload(A, { folder: '/sys/kernel' });
    },
  },
  {
    name: 'NaN, which the server finds',
    code: 'non-finite',
    kind: RefusedError,
    says: /non-finite/,
    work: ({ client, server }) => {
      server.overrides[`/leaves/${LEAF_ID}/updates`] = (_, response) => {
        refuse(response, 422, 'non-finite');
        return true;
      };
      return client.fileUpload({ weighting: 1, tensors: [tensorOf(Float32Array.of(Number.NaN))] });
    },
  },
  {
    name: 'another shape than the model has',
    code: 'layout-shape',
    kind: RefusedError,
    says: /layout-shape/,
    work: ({ client, server }) => {
      server.overrides[`/leaves/${LEAF_ID}/updates`] = (_, response) => {
        refuse(response, 422, 'layout-shape');
        return true;
      };
      return client.fileUpload(UPDATE);
    },
  },
  {
    name: 'a server that stays away',
    code: 'unavailable-server',
    kind: ExchangeError,
    says: /the connection broke|failed/,
    work: ({ client, server }) => {
      server.overrides['/'] = (_, response) => {
        response.destroy();
        return true;
      };
      return client.getRunDetails();
    },
    also: (error) => assert.is((error as ExchangeError).attempts, 5),
  },
  {
    name: 'a server that asks for more patience than there is',
    code: 'overloaded',
    kind: RefusedError,
    says: /overloaded/,
    work: ({ client, server }) => {
      server.overrides['/'] = (_, response) => {
        refuse(response, 503, 'overloaded', { 'retry-after': '3600' });
        return true;
      };
      return client.getRunDetails();
    },
    also: (error) => {
      const { attempts, retryAfterMs } = error as RefusedError;
      assert.equal([attempts, retryAfterMs], [1, 3_600_000]);
    },
  },
  {
    name: 'an answer of another shape',
    code: 'protocol-shape',
    kind: ProtocolError,
    says: /the server's run has no valid "run_status"/,
    work: ({ client, server }) => {
      server.overrides['/branches/'] = (_, response) => {
        answer(response, 200, { run_status: 'running' });
        return true;
      };
      return client.getRunDetails();
    },
  },
];

/** Files of Node on a disk that takes so many bytes. */
const diskOf = (room: number) => ({
  openSource: (path: string) => openFileSource(path),
  openSink: (path: string) => openFileSink(path),
  async openPartialSink(path: string, key: string) {
    const sink = await openPartialSink(path, key);
    const cause = Object.assign(new Error('ENOSPC: no space left on device'), {
      code: 'ENOSPC',
      syscall: 'write',
    });
    return {
      ...sink,
      keep: sink.keep.bind(sink),
      write: (offset: number, bytes: Uint8Array) =>
        offset + bytes.byteLength > room
          ? Promise.reject(fileError(cause, path, 'write'))
          : sink.write(offset, bytes),
    };
  },
  sha256: () => ({
    update() {},
    copy: () => diskOf(room).sha256(),
    digest: () => '',
    digestBytes: () => new Uint8Array(32),
  }),
});

for (const { name, code, kind, says, work, also } of CASES) {
  test(`${name}: ${code}`, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cambium-bad-'));
    const server = await LeafServer.start();
    const client = new Client(server.credentials, {
      clock: new HastyClock(),
      random: () => 0,
      notices: { carrier: 'events' },
    });
    const page: Scene['page'] = (path, status, body, headers) => {
      server.overrides[path] = (_: IncomingMessage, response: ServerResponse) => {
        response.writeHead(status, { 'content-type': 'text/html', ...headers }).end(body);
        return true;
      };
    };
    try {
      const before = await readdir(folder);
      const error = await failsWith(code, () => work({ server, client, folder, page }));
      assert.ok(error instanceof kind, `${error.name}`);
      assert.match(error.message, says);
      also?.(error);
      assert.not.match(`${error.message} ${(error as ExchangeError).preview}`, /secret|a-token/);
      const left = (await readdir(folder)).filter(
        (file) => !['empty.npy', 'notes.npy', 'cut.npy'].includes(file),
      );
      assert.equal(left, before);
    } finally {
      await client.close();
      await server.close();
      await rm(folder, { recursive: true });
    }
  });
}

test.run();
