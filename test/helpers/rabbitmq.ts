/**
 * A RabbitMQ of the test's own: free ports of the loopback interface, everything it writes in a temporary folder, its
 * own name service and cookie. Debian's package brings the program; no broker of the system is touched.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { freePorts } from './loopback.ts';

/** `rabbitmq-server` itself: the one in /usr/sbin changes to another user and to the system's folders. */
const PROGRAM = process.env.CAMBIUM_RABBITMQ_SERVER ?? '/usr/lib/rabbitmq/bin/rabbitmq-server';

const POLL_MS = 50;
/** Erlang starts in seconds; on a machine that does much else besides, in a minute. */
const START_MS = 240_000;

/** Whether this machine has the program; if not, the runner counts the line printed here. */
export function hasRabbitMq(): boolean {
  if (existsSync(PROGRAM)) return true;
  console.log('SKIPPED (missing peer): RabbitMQ; Debian: apt-get install rabbitmq-server');
  return false;
}

export interface RabbitMqOptions {
  /** Base URL of a server of ours that answers for leaves. */
  readonly authUrl?: string;
  /** PEM files for a TLS listener. */
  readonly tls?: { readonly cert: string; readonly key: string };
}

export class RabbitMq {
  readonly #folder = mkdtempSync(join(tmpdir(), 'cambium-rabbitmq-'));
  readonly #env: NodeJS.ProcessEnv;
  readonly port: number;
  readonly tlsPort: number;
  readonly url: string;
  readonly managementUrl: string;
  #epmd: ChildProcess;
  #server: ChildProcess | undefined;

  private constructor(options: RabbitMqOptions, ports: readonly number[]) {
    const [port = 0, tlsPort = 0, managementPort = 0, epmdPort = 0, distPort = 0] = ports;
    this.port = port;
    this.tlsPort = tlsPort;
    this.url = `amqp://cambium:secret@127.0.0.1:${port}`;
    this.managementUrl = `http://127.0.0.1:${managementPort}`;
    const { authUrl, tls } = options;
    const conf = [
      `listeners.tcp.1 = 127.0.0.1:${port}`,
      'management.tcp.ip = 127.0.0.1',
      `management.tcp.port = ${managementPort}`,
      'default_user = cambium',
      'default_pass = secret',
    ];
    if (tls !== undefined) {
      conf.push(`listeners.ssl.1 = 127.0.0.1:${tlsPort}`, 'ssl_options.verify = verify_none');
      conf.push(`ssl_options.certfile = ${tls.cert}`, `ssl_options.keyfile = ${tls.key}`);
    }
    if (authUrl !== undefined) {
      conf.push('auth_backends.1 = internal', 'auth_backends.2 = http', 'auth_http.http_method = post');
      for (const path of ['user', 'vhost', 'resource', 'topic']) {
        conf.push(`auth_http.${path}_path = ${authUrl}/rabbitmq/${path}`);
      }
    }
    mkdirSync(join(this.#folder, 'log'));
    writeFileSync(join(this.#folder, 'rabbitmq.conf'), `${conf.join('\n')}\n`);
    const plugins = ['rabbitmq_management', ...(authUrl === undefined ? [] : ['rabbitmq_auth_backend_http'])];
    writeFileSync(join(this.#folder, 'enabled_plugins'), `[${plugins.join(',')}].\n`);
    this.#env = {
      PATH: process.env.PATH,
      HOME: this.#folder, // the cookie
      RABBITMQ_NODENAME: `cambium-${port}@localhost`,
      RABBITMQ_MNESIA_BASE: join(this.#folder, 'mnesia'),
      RABBITMQ_LOG_BASE: join(this.#folder, 'log'),
      RABBITMQ_ENABLED_PLUGINS_FILE: join(this.#folder, 'enabled_plugins'),
      RABBITMQ_CONFIG_FILE: join(this.#folder, 'rabbitmq.conf'),
      RABBITMQ_PID_FILE: join(this.#folder, 'pid'),
      RABBITMQ_CONF_ENV_FILE: '/dev/null',
      RABBITMQ_DIST_PORT: String(distPort),
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
      ERL_EPMD_ADDRESS: '127.0.0.1',
      ERL_EPMD_PORT: String(epmdPort),
    };
    // Ours, in the foreground: the one that Erlang would start stays behind as a daemon.
    this.#epmd = spawn('epmd', ['-port', String(epmdPort)], { env: this.#env, stdio: 'ignore' });
  }

  static async start(options: RabbitMqOptions = {}): Promise<RabbitMq> {
    const broker = new RabbitMq(options, await freePorts(5));
    await broker.start();
    return broker;
  }

  /** Starts it again, with what it had. */
  async start(): Promise<void> {
    rmSync(join(this.#folder, 'pid'), { force: true });
    this.#server = spawn(PROGRAM, { env: this.#env, stdio: ['ignore', 'ignore', 'ignore'] });
    const { managementUrl } = this;
    const end = Date.now() + START_MS;
    const headers = { authorization: `Basic ${Buffer.from('cambium:secret').toString('base64')}` };
    for (;;) {
      const isReady = await fetch(`${managementUrl}/api/health/checks/alarms`, { headers }).then(
        (response) => response.ok,
        () => false,
      );
      if (isReady) return;
      if (Date.now() > end || this.#server.exitCode !== null) {
        throw new Error(`RabbitMQ does not start\n${this.#log()}`);
      }
      await pause(POLL_MS);
    }
  }

  /** Ends it in an orderly way. */
  stop(): Promise<void> {
    return this.#end('SIGTERM');
  }

  kill(): Promise<void> {
    return this.#end('SIGKILL');
  }

  /** Forgets everything that it had; while it does not run. */
  empty(): void {
    rmSync(join(this.#folder, 'mnesia'), { recursive: true, force: true });
  }

  /** Ends it and removes what it wrote. */
  async end(): Promise<void> {
    await this.kill();
    this.#epmd.kill('SIGKILL');
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** A call of the management API. */
  async manage(method: string, path: string): Promise<unknown> {
    const headers = { authorization: `Basic ${Buffer.from('cambium:secret').toString('base64')}` };
    const response = await fetch(`${this.managementUrl}/api/${path}`, { method, headers });
    const text = await response.text();
    return text === '' ? undefined : JSON.parse(text);
  }

  /** How its logs end. */
  #log(): string {
    const folder = join(this.#folder, 'log');
    return readdirSync(folder)
      .map((name) => `${name}:\n${readFileSync(join(folder, name), 'utf8').slice(-4000)}`)
      .join('\n');
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const server = this.#server;
    if (server === undefined || server.exitCode !== null) return;
    this.#server = undefined;
    const exit = once(server, 'exit');
    // The child is a shell around it.
    const file = join(this.#folder, 'pid');
    const pid = existsSync(file) ? Number(readFileSync(file, 'utf8')) : server.pid!;
    process.kill(pid, signal);
    await exit;
  }
}
