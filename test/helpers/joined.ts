/** A long-running command as a user runs it: the built command line in a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

export interface JoinLine {
  readonly event?: string;
  readonly code?: string;
  readonly [member: string]: unknown;
}

export class JoinedLeaf {
  static readonly #running = new Set<JoinedLeaf>();
  readonly child: ChildProcess;
  readonly lines: JoinLine[] = [];
  /** What came on stderr. */
  stderr = '';
  #wake = () => {};
  #isEnded = false;
  readonly #exit: Promise<unknown[]>;

  /** Ends all that still run: one that a failed test has left would keep the suite from ending. */
  static async endAll(): Promise<void> {
    for (const leaf of [...JoinedLeaf.#running]) await leaf.end();
  }

  constructor(args: readonly string[], env: NodeJS.ProcessEnv = process.env, command = 'join') {
    this.child = spawn(process.execPath, [CLI, command, '--json', ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env,
    });
    JoinedLeaf.#running.add(this);
    this.#exit = once(this.child, 'close').finally(() => JoinedLeaf.#running.delete(this));
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    createInterface(this.child.stdout!)
      .on('line', (line) => {
        this.lines.push(JSON.parse(line) as JoinLine);
        this.#wake();
      })
      .on('close', () => {
        this.#isEnded = true;
        this.#wake();
      });
  }

  /** Ends when it has told of such an event so many times; the last of them. */
  async told(event: string, times = 1): Promise<JoinLine> {
    await this.#until(() => this.all(event).length >= times);
    return this.all(event)[times - 1]!;
  }

  /** Ends when it has printed so many lines. */
  printed(count: number): Promise<void> {
    return this.#until(() => this.lines.length >= count);
  }

  async #until(isEnough: () => boolean): Promise<void> {
    while (!isEnough()) {
      if (this.#isEnded) throw new Error(`it ended: ${JSON.stringify(this.lines)} ${this.stderr}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  all(event: string): JoinLine[] {
    return this.lines.filter((line) => line.event === event);
  }

  /** The exit code, when it has ended. */
  async ended(): Promise<number | null> {
    await this.#exit;
    return this.child.exitCode;
  }

  async end(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
    this.child.stderr!.destroy(); // a program that it has started may go on, and holds it
    await this.#exit;
  }
}
