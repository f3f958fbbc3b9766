// A server of its own process and its leaves in this one, over plain HTTP: what is measured is the server, no client of ours.
import { fork } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

/** Starts a server with one branch of so many leaves, its run started; every leaf listens for notices. */
export async function openFederation(folder, leaves) {
  const dataDir = join(folder, 'data');
  const server = fork(CLI, ['serve', '--data', dataDir, '--port', '0', '--json'], {
    stdio: ['ignore', 'pipe', 'ignore', 'ipc'],
  });
  await new Promise((resolve) => server.stdout.once('data', resolve));
  const { server: url, token } = JSON.parse(await readFile(join(dataDir, 'operator.json'), 'utf8'));
  const operate = async (method, path, body) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const answer = await fetch(`${url}/cambium/v1${path}`, { method, headers, body: JSON.stringify(body) });
    const text = await answer.text();
    if (!answer.ok) throw new Error(text);
    return JSON.parse(text);
  };
  const tree = await operate('POST', '/trees', { name: 'tree' });
  const branch = await operate('POST', '/branches', {
    name: 'branch',
    tree_id: tree.id,
    aggregation_target: leaves,
  });
  const members = [];
  for (let i = 0; i < leaves; i++) {
    members.push(
      new Leaf(url, await operate('POST', '/leaves', { name: `leaf-${i}`, branch_id: branch.id })),
    );
  }
  await operate('POST', `/branches/${branch.id}/run`, { run_status: 'start' });
  await Promise.all(members.map((leaf) => leaf.listen()));
  return {
    leaves: members,
    /** The rounds that are done, the newest first. */
    rounds: async () => {
      const { items } = await operate('GET', `/branches/${branch.id}/rounds`);
      return items.filter(({ status }) => status === 'done');
    },
    /** Hexadecimal SHA-256 of an aggregation. */
    digest: async (id) => (await operate('GET', `/aggregations/${id}`)).sha256,
    async close() {
      for (const leaf of members) leaf.close();
      server.kill();
      await new Promise((resolve) => server.once('exit', resolve));
    },
  };
}

class Leaf {
  #url;
  #credentials;
  #agent = new Agent({ keepAlive: true });
  #stream;
  #isClosed = false;
  #hear = () => {};

  constructor(url, credentials) {
    this.#url = url;
    this.#credentials = credentials;
  }

  /** Uploads a file; answers when its last byte was handed to the system, and when the receipt was there. */
  upload(bytes) {
    const { id } = this.#credentials;
    return new Promise((resolve, reject) => {
      const upload = this.#request('PUT', `/leaves/${id}/updates`, { 'content-length': bytes.length });
      let lastByteAt = 0;
      upload.once('finish', () => {
        lastByteAt = performance.now();
      });
      upload.once('error', reject);
      upload.once('response', (answer) => {
        answer.resume();
        if (answer.statusCode !== 201) reject(new Error(`the upload was answered ${answer.statusCode}`));
        answer.once('end', () => resolve({ lastByteAt, receiptAt: performance.now() }));
      });
      upload.end(bytes);
    });
  }

  /** When the next aggregation is announced to this leaf. */
  notice() {
    return new Promise((resolve) => {
      this.#hear = () => resolve(performance.now());
    });
  }

  /** Opens the stream of notices. */
  listen() {
    return new Promise((resolve, reject) => {
      this.#stream = this.#request('GET', `/leaves/${this.#credentials.id}/notices`);
      this.#stream.once('error', (error) => this.#isClosed || reject(error));
      this.#stream.once('response', (answer) => {
        answer.on('error', () => {});
        answer.on('data', (chunk) => {
          if (chunk.includes('event: aggregation_status')) this.#hear();
        });
        resolve();
      });
      this.#stream.end();
    });
  }

  close() {
    this.#isClosed = true;
    this.#stream.destroy();
    this.#agent.destroy();
  }

  #request(method, path, headers = {}) {
    const { id, session_token } = this.#credentials;
    return request(`${this.#url}/cambium/v1${path}`, {
      method,
      agent: this.#agent,
      headers: { authorization: `Bearer ${id}:${session_token}`, ...headers },
    });
  }
}
