import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { CredentialsBody } from '../../../src/wire/cambium.ts';
import { PYTHON } from '../../helpers/peers.ts';

const SCRIPT = fileURLToPath(new URL('consumer.py', import.meta.url));

export type Generation = '2.0' | '2.1' | '2.2' | '2.5' | '2.7';

interface Line {
  readonly put?: string;
  readonly event?: 'consuming' | 'run' | 'unknown' | 'closed' | 'broken' | 'cancelled';
  readonly status?: string;
  readonly number?: number;
  readonly code?: number;
}

export interface ConsumerOptions {
  readonly generation: Generation;
  readonly port: number;
  /** Base URL of the server. */
  readonly server: string;
  /** The token that is the password, the session token unless given. */
  readonly password?: string;
  /** PEM of the authority of the broker's certificate: then over TLS. */
  readonly ca?: string;
}

/** A leaf in a process of its own (consumer.py). */
export class Consumer {
  readonly #child: ChildProcess;
  readonly #lines: Line[] = [];
  #wake = () => {};
  #isEnded = false;

  private constructor(child: ChildProcess) {
    this.#child = child;
    createInterface(child.stdout!)
      .on('line', (line) => {
        this.#lines.push(JSON.parse(line) as Line);
        this.#wake();
      })
      .on('close', () => {
        this.#isEnded = true;
        this.#wake();
      });
  }

  /** Starts it and waits until it reads its queue. */
  static async start(leaf: CredentialsBody, options: ConsumerOptions): Promise<Consumer> {
    const consumer = Consumer.spawn(leaf, options);
    await consumer.event('consuming');
    return consumer;
  }

  static spawn(leaf: CredentialsBody, options: ConsumerOptions): Consumer {
    const { generation, port, server, ca } = options;
    const isRoot = generation === '2.0';
    const basic = Buffer.from(`${leaf.id}:${leaf.session_token}`).toString('base64');
    const config = {
      generation,
      host: '127.0.0.1',
      port,
      vhost: isRoot ? '/' : leaf.tree_id,
      user: isRoot ? leaf.branch_id : leaf.id,
      password: options.password ?? (isRoot ? leaf.queue_password : leaf.session_token),
      queue: isRoot ? `${leaf.branch_id}_${leaf.name}` : leaf.id,
      exchange: `${leaf.branch_id}_exchange`,
      run_url: `${server}/v1/branch/${leaf.branch_id}/run`,
      authorization: `Basic ${basic}`,
      tls: ca !== undefined,
    };
    const env = { ...process.env, ...(ca === undefined ? {} : { SSL_CERT_FILE: ca }) };
    return new Consumer(
      spawn(PYTHON, [SCRIPT, JSON.stringify(config)], { env, stdio: ['pipe', 'pipe', 'inherit'] }),
    );
  }

  /** The next of its lines that is meant; those before it stay. */
  async #next(isMeant: (line: Line) => boolean): Promise<Line> {
    for (;;) {
      const found = this.#lines.findIndex(isMeant);
      if (found >= 0) return this.#lines.splice(found, 1)[0]!;
      if (this.#isEnded) throw new Error(`the consumer ended; left: ${JSON.stringify(this.#lines)}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** The next event of one of these kinds. */
  event(...kinds: readonly Line['event'][]): Promise<Line> {
    return this.#next((line) => line.event !== undefined && kinds.includes(line.event));
  }

  /** What lands next in the queue of the client. */
  async put(): Promise<string> {
    return (await this.#next((line) => line.put !== undefined)).put!;
  }

  /** What it has said and nobody has asked for. */
  get rest(): readonly Line[] {
    return this.#lines;
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
  }
}
