import { type ChildProcess, fork } from 'node:child_process';
import { unpackError } from '../../aggregate/packed-errors.ts';
import { type CambiumError, InternalError } from '../../errors.ts';
import type { Failed, Message, Task } from './messages.ts';

/** As much of what a process says on stderr as is kept for the message of its failure. */
const MAX_STDERR = 4096;

type RoundMessage = Exclude<Message, Failed>;

/** The built file that is run; the command line and its chunks find it from their own place. */
function entryUrl(): URL {
  return new URL(
    import.meta.url.includes('/chunks/') ? '../demo-leaf.js' : './demo-leaf.js',
    import.meta.url,
  );
}

/** One process of the demo. It ends with its task, with `stop`, or with us: a lost channel is the end of it. */
export class TrainingProcess {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #messages: RoundMessage[] = [];
  #failure: CambiumError | undefined;
  #waiting: { resolve(message: RoundMessage): void; reject(error: unknown): void } | undefined;

  constructor(name: string) {
    this.name = name;
    this.#child = fork(entryUrl(), [], {
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    let stderr = '';
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-MAX_STDERR);
    });
    this.#child.on('message', (message: Message) => this.#take(message));
    this.#ended = this.#end(() => stderr);
  }

  send(task: Task): void {
    // A process that is gone already says so by its end.
    this.#child.send(task, () => {});
  }

  /** The next round that the process has finished. Rejects with what made it fail. One wait at a time. */
  next(): Promise<RoundMessage> {
    const message = this.#messages.shift();
    if (message !== undefined) return Promise.resolve(message);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  /** Ends the process, whatever it is doing, and waits for that. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.#ended;
  }

  #take(message: Message): void {
    if (message.type === 'failed') {
      const error = unpackError(message.error);
      error.message = `${this.name}: ${error.message}`;
      this.#fail(error);
    } else if (this.#waiting === undefined) {
      this.#messages.push(message);
    } else {
      this.#waiting.resolve(message);
      this.#waiting = undefined;
    }
  }

  /** The first reason is the true one. */
  #fail(error: CambiumError): void {
    this.#failure ??= error;
    this.#waiting?.reject(this.#failure);
    this.#waiting = undefined;
  }

  async #end(stderr: () => string): Promise<void> {
    const child = this.#child;
    await new Promise<void>((resolve) => {
      child.once('error', (cause) => {
        this.#fail(
          new InternalError('internal-process', `${this.name}: no process: ${cause.message}`, { cause }),
        );
        if (child.pid === undefined) resolve();
      });
      // Messages may still be in the channel when the process has ended; after both nothing comes any more.
      let left = 2;
      const half = () => {
        if (--left === 0) resolve();
      };
      child.once('close', half);
      child.once('disconnect', half);
    });
    const how = child.signalCode === null ? `code ${child.exitCode}` : `signal ${child.signalCode}`;
    const said = stderr().trim().split('\n').at(-1);
    this.#fail(
      new InternalError(
        'internal-process',
        `${this.name}: the process ended with ${how}${said ? `: ${said}` : ''}`,
      ),
    );
  }
}
