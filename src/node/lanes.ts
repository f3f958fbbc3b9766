/** Worker threads as lanes of aggregations (`aggregate/lanes.ts`): started when first needed, kept for the next one. */
import { Worker } from 'node:worker_threads';
import type { Lane, LaneOrder, SpanResult } from '../aggregate/lanes.ts';
import { InternalError } from '../errors.ts';
import { builtFile } from './built-file.ts';
import type { FromLane, ToLane } from './lane-messages.ts';
import { unpackError } from './worker-errors.ts';
import { WORKER_OPTIONS } from './worker-options.ts';

/** Spans that a lane has in hand: one under way, one to go on with while the answer travels. */
const DEPTH = 2;

type Body<M> = M extends unknown ? Omit<M, 'id'> : never;

/** A thread that answers messages. */
class LaneThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<
    number,
    { resolve(value: SpanResult | null): void; reject(error: unknown): void }
  >();
  #nextId = 1;
  #loss: InternalError | null = null;

  constructor(url: URL) {
    this.#worker = new Worker(url, WORKER_OPTIONS);
    this.#worker.unref(); // the job that waits for its answers keeps the process alive
    this.#worker.on('message', (message: FromLane) => {
      const waiting = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (message.type === 'done') waiting?.resolve(message.value);
      else waiting?.reject(unpackError(message.error));
      if (this.#waiting.size === 0) this.#worker.unref();
    });
    this.#worker.on('error', (cause) =>
      this.#lose(new InternalError('internal-worker', `a lane failed: ${cause.message}`, { cause })),
    );
    this.#worker.on('exit', (code) =>
      this.#lose(new InternalError('internal-worker', `a lane ended with code ${code}`)),
    );
  }

  get isLost(): boolean {
    return this.#loss !== null;
  }

  ask(message: Body<ToLane>): Promise<SpanResult | null> {
    if (this.#loss !== null) return Promise.reject(this.#loss);
    const id = this.#nextId++;
    this.#worker.ref();
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ ...message, id } as ToLane); // the body of one of them, and its id
    });
  }

  #lose(error: InternalError): void {
    this.#loss ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#loss);
    this.#waiting.clear();
  }
}

/** Threads that have nothing to do. */
const idle: LaneThread[] = [];

/**
 * Opens `count` lanes for one aggregation.
 *
 * @param url the built lane; beside this file unless given
 */
export async function openLanes(
  count: number,
  order: LaneOrder,
  url = builtFile(import.meta.url, 'lane.js'),
): Promise<Lane[]> {
  return Promise.all(
    Array.from({ length: count }, async (): Promise<Lane> => {
      const thread = idle.pop() ?? new LaneThread(url);
      // Not awaited: messages are answered in their order, and a start takes longer than many an aggregation.
      const opening = thread.ask({ type: 'open', order });
      opening.catch(() => {}); // `begin` fails as well then
      return {
        depth: DEPTH,
        async begin(stage) {
          await opening;
          await thread.ask({ type: 'begin', stage });
        },
        async run(span) {
          return (await thread.ask({ type: 'run', span }))!; // a span has a result
        },
        close() {
          thread.ask({ type: 'close' }).catch(() => {}); // a lost thread has nothing to close
          if (!thread.isLost) idle.push(thread);
        },
      };
    }),
  );
}
