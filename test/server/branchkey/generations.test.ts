/** Every generation of BranchKey's protocol on one server, spoken by python3-requests with files of real NumPy. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { startJobs } from '../../../src/node/workers.ts';
import { bearerPaths, loginPaths, paths } from '../../../src/wire/branchkey.ts';
import {
  type AggregationBody,
  type CredentialsBody,
  type MetricsBody,
  paths as own,
  type RunBody,
} from '../../../src/wire/cambium.ts';
import { hasPythonModule, PYTHON } from '../../helpers/peers.ts';
import { Harness } from '../harness.ts';

const test = suite('server/branchkey/generations');

interface Reply {
  readonly status: number;
  readonly type: string | null;
  readonly body: { data?: Record<string, unknown>; error?: string; message?: string; code?: string } | null;
  readonly file: {
    readonly keys?: readonly string[];
    readonly shape?: readonly number[];
    readonly weighting?: unknown;
    readonly kinds?: readonly string[];
    readonly arrays: readonly unknown[];
  } | null;
}

/** A process of Python that does what it is told. */
class Peer {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  constructor() {
    const script = fileURLToPath(new URL('requests_peer.py', import.meta.url));
    this.#process = spawn(PYTHON, [script], { env: { ...process.env, no_proxy: '*' } });
    this.#process.stderr.pipe(process.stderr);
    this.#lines = createInterface(this.#process.stdout)[Symbol.asyncIterator]();
  }

  async ask(command: object): Promise<Reply> {
    this.#process.stdin.write(`${JSON.stringify(command)}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the peer has ended');
    return JSON.parse(value) as Reply;
  }

  async close(): Promise<void> {
    this.#process.stdin.end();
    if (this.#process.exitCode === null) await once(this.#process, 'exit');
  }
}

type Auth = readonly [user: string, password: string];

/** How one version of the client goes through a round. */
interface Version {
  readonly name: string;
  readonly paths: typeof paths | typeof bearerPaths;
  readonly bearer?: true;
  readonly extension: 'npy' | 'npz';
  /** Logs in or authenticates; gives what later requests carry. */
  begin(leaf: CredentialsBody): Promise<Auth>;
  end?(leaf: CredentialsBody, auth: Auth): Promise<void>;
  /** Who asks for the run; nobody up to 2.5.0. */
  runAs?(leaf: CredentialsBody): Auth;
  readonly runHeaders?: Readonly<Record<string, string>>;
  /** How metrics are sent, not at all before 2.4. */
  readonly metrics?: {
    readonly method: 'GET' | 'POST';
    readonly mode?: 'test';
    as(leaf: CredentialsBody): Auth;
  };
}

if (hasPythonModule('requests') && hasPythonModule('numpy')) {
  const harness = new Harness();
  const jobs = startJobs({ threads: 2, workerUrl: new URL('../../../dist/worker.js', import.meta.url) });
  let peer: Peer;
  let folder: string;
  test.before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'cambium-branchkey-'));
    peer = new Peer();
    await harness.start({ jobs });
  });
  test.after(async () => {
    await peer.close();
    await harness.end();
    await jobs.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const url = (path: string) => harness.server.url + path;
  const send = (method: string, path: string, auth: Auth, more: object = {}) =>
    peer.ask({ do: 'send', method, url: url(path), auth, ...more });

  const asItself = (leaf: CredentialsBody): Auth => [leaf.leaf_id, leaf.leaf_session_token];
  const analyser = (leaf: CredentialsBody): Auth => [
    leaf.performance_analyser_username,
    leaf.performance_analyser_password,
  ];

  const login =
    (key: 'logged_in' | 'status', expected: unknown) =>
    async (leaf: CredentialsBody): Promise<Auth> => {
      const { tree_id, branch_id, leaf_name, leaf_password } = leaf;
      const text = JSON.stringify({ tree_id, branch_id });
      const { status, body } = await send('PUT', loginPaths.login(), [leaf_name, leaf_password], { text });
      assert.equal([status, body?.data?.[key], body?.data?.id], [201, expected, leaf.id]);
      return [body!.data!.id as string, body!.data!.access_token as string];
    };
  const logout =
    (as: (leaf: CredentialsBody, auth: Auth) => Auth) => async (leaf: CredentialsBody, auth: Auth) => {
      assert.is((await send('PUT', loginPaths.logout(), as(leaf, auth))).status, 200);
      const after = await send('GET', paths.download('x'), auth);
      assert.equal([after.status, after.body?.code], [401, 'token-invalid']);
    };
  const authenticate = async (leaf: CredentialsBody): Promise<Auth> => {
    const { status, body } = await send('GET', paths.authenticate(), asItself(leaf));
    assert.is(status, 200);
    assert.equal(
      [body?.data?.tree_id, body?.data?.branch_id, body?.data?.user_id],
      [leaf.tree_id, leaf.branch_id, leaf.owner_id],
    );
    return asItself(leaf);
  };

  const old = { paths, extension: 'npy' } as const;
  const basic = { ...old, begin: authenticate, runHeaders: { leaf: 'true' } } as const;
  const VERSIONS: readonly Version[] = [
    {
      ...old,
      name: '2.0',
      begin: login('logged_in', true),
      end: logout(({ leaf_name, leaf_password }) => [leaf_name, leaf_password]),
    },
    {
      ...old,
      name: '2.2.1',
      begin: login('status', 'logged_in'),
      end: logout((leaf, auth) => [leaf.name, auth[1]]),
    },
    { ...old, name: '2.2.3', begin: login('status', 'logged_in'), end: logout((_leaf, auth) => auth) },
    { ...basic, name: '2.3' },
    { ...basic, name: '2.4.0', metrics: { method: 'GET', as: analyser } },
    { ...basic, name: '2.5.1', runAs: analyser, metrics: { method: 'POST', mode: 'test', as: analyser } },
    { ...basic, name: '2.8.0', runAs: asItself, metrics: { method: 'POST', mode: 'test', as: asItself } },
    {
      name: '2.7.3',
      paths: bearerPaths,
      bearer: true,
      extension: 'npz',
      begin: async (leaf) => asItself(leaf),
      runAs: asItself,
      runHeaders: { LEAF: 'true' },
      metrics: { method: 'POST', mode: 'test', as: asItself },
    },
  ];

  const options = ({ bearer }: Version) => (bearer ? { bearer } : {});

  async function upload(
    version: Version,
    leaf: CredentialsBody,
    auth: Auth,
    weighting: number,
    values: object,
  ) {
    const file = join(folder, `${version.name}-${weighting}.${version.extension}`);
    await peer.ask({ do: 'save', path: file, weighting, values });
    return send('POST', version.paths.upload(), auth, { ...options(version), file, leaf: leaf.name });
  }

  /** The newest aggregation, once the open round is past it. */
  async function aggregated(branch: string): Promise<string> {
    for (;;) {
      const { body } = await harness.operate<RunBody>('GET', own.run(branch));
      if (body.aggregation_id !== null) return body.aggregation_id;
      await new Promise(setImmediate);
    }
  }

  async function download(version: Version, id: string, auth: Auth): Promise<Reply> {
    const ask = { url: url(version.paths.download(id)), method: 'GET', auth, headers: { accept: '*/*S' } };
    if (version.end !== undefined) return peer.ask({ do: 'read', ...ask });
    const link = await peer.ask({ do: 'send', ...ask, ...options(version) });
    assert.is(link.status, 200);
    return peer.ask({ do: 'read', method: 'GET', url: link.body!.data!.download_url });
  }

  for (const version of VERSIONS) {
    test(`a round with ${version.name}: begin, run, upload, download, metrics, pause and start, end`, async () => {
      const { id, leaves } = await harness.branch(1);
      const leaf = leaves[0]!;
      const auth = await version.begin(leaf);
      const run = async () => {
        const as = version.runAs?.(leaf) ?? auth;
        const path = version.paths.run(id);
        const { status, body } = await send('GET', path, as, {
          ...options(version),
          headers: version.runHeaders ?? {},
        });
        assert.is(status, 200);
        return body!.data;
      };
      assert.equal(await run(), { run_status: 'start', run_number: 1 });

      await harness.run(id, 'pause');
      assert.is((await run())!.run_status, 'pause');
      const paused = await upload(version, leaf, auth, 1, [[1, 1]]);
      assert.equal([paused.status, paused.body?.code], [409, 'run-paused']);
      assert.ok(paused.body?.error && paused.body.error === paused.body.message);
      await harness.run(id, 'start');

      const values = [
        [
          [1.5, -2],
          [0, 3],
        ],
        [0.25],
      ];
      const received = await upload(version, leaf, auth, 7, values);
      assert.is(received.status, 201);
      assert.type(received.body?.data?.file_id, 'string');
      const aggregation = await aggregated(id);
      const { status, file } = await download(version, aggregation, auth);
      assert.is(status, 200);
      assert.equal(
        file,
        version.extension === 'npz'
          ? { keys: ['layer_0', 'layer_1'], arrays: values }
          : { shape: [2], weighting: 7, kinds: ['int', 'list', 'ndarray'], arrays: values },
      );

      if (version.metrics !== undefined) {
        const { method, mode, as } = version.metrics;
        const text = JSON.stringify({
          ...(mode === undefined ? {} : { mode }),
          aggregation_id: aggregation,
          leaf_id: leaf.id,
          branch_id: id,
          tree_id: leaf.tree_id,
          data: '{"accuracy": 0.5}',
        });
        const stored = await send(method, version.paths.performance(), as(leaf), {
          ...options(version),
          text,
        });
        assert.is(stored.status, 201);
        const { body } = await harness.operate<{ items: MetricsBody[] }>('GET', own.branchMetrics(id));
        assert.equal(
          body.items.map((item) => [item.mode, item.data, item.leaf_id]),
          [['test', { accuracy: 0.5 }, leaf.id]],
        );
      }
      await version.end?.(leaf, auth);
    });
  }

  test('leaves of all generations in one round: one mean, to each in the format of its own', async () => {
    const { id, leaves } = await harness.branch(VERSIONS.length);
    const auths: Auth[] = [];
    for (const [i, version] of VERSIONS.entries()) {
      auths.push(await version.begin(leaves[i]!));
      // Ten layers and more: as text, layer_10 would come before layer_2.
      const values = Array.from({ length: 12 }, (_, layer) => [layer, i]);
      const { status } = await upload(version, leaves[i]!, auths[i]!, i + 1, values);
      assert.is(status, 201, version.name);
    }
    const aggregation = await aggregated(id);
    const mean = Math.fround([0, 1, 2, 3, 4, 5, 6, 7].reduce((sum, i) => sum + i * (i + 1), 0) / 36);
    const arrays = Array.from({ length: 12 }, (_, layer) => [layer, mean]);
    for (const [i, version] of VERSIONS.entries()) {
      const { status, file } = await download(version, aggregation, auths[i]!);
      assert.is(status, 200);
      assert.equal(file?.arrays, arrays, version.name);
      assert.is(file?.weighting, version.extension === 'npz' ? undefined : 36);
    }
    // Converted once, whoever asks and however often.
    const before = (await harness.stored()).blobs;
    for (const [i, version] of VERSIONS.entries()) await download(version, aggregation, auths[i]!);
    assert.equal((await harness.stored()).blobs, before);
    assert.equal((await harness.stored()).spool, []);
  });

  test("a fractional total is an int to BranchKey's readers, and itself to Cambium's", async () => {
    const { id, leaves } = await harness.branch(1);
    const [leaf] = leaves;
    const bearer = VERSIONS.at(-1)!;
    assert.is((await upload(bearer, leaf!, asItself(leaf!), 0.25, [[2]])).status, 201);
    const aggregation = await aggregated(id);
    const read = await download(VERSIONS[3]!, aggregation, asItself(leaf!));
    assert.equal([read.file?.weighting, read.file?.kinds], [1, ['int', 'list', 'ndarray']]);
    for (const format of ['npz', 'safetensors'] as const) {
      const { body } = await harness.operate<AggregationBody>(
        'GET',
        `${own.aggregation(aggregation)}?format=${format}`,
      );
      const file = await fetch(body.download_url);
      const bytes = new Uint8Array(await file.arrayBuffer());
      assert.is(file.headers.get('content-type'), `application/x-${format}`);
      assert.is(file.headers.get('etag'), `"${body.sha256}"`);
      assert.is(bytes.byteLength, body.byte_length);
      const part = await fetch(body.download_url, { headers: { range: 'bytes=-5' } });
      assert.equal([part.status, new Uint8Array(await part.arrayBuffer())], [206, bytes.slice(-5)]);
    }
    const { body } = await harness.operate<AggregationBody>('GET', own.aggregation(aggregation));
    const chosen = await fetch(body.download_url, { headers: { accept: 'application/x-npz' } });
    assert.match(chosen.headers.get('content-disposition')!, /\.npz"$/);
    const plain = await fetch(body.download_url);
    assert.is(plain.headers.get('etag'), `"${body.sha256}"`);
    assert.is(
      (await harness.operate('GET', `${own.aggregation(aggregation)}?format=zip`)).body.code,
      'query-invalid',
    );
  });
}

test.run();
