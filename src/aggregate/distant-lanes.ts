/** Lanes on other threads, of whatever kind the host has: questions and answers in messages, at both ends. */
import type { InternalError } from '../errors.ts';
import type { FromLane, ToLane } from './lane-messages.ts';
import type { Lane, LaneOrder, LocalLane, SpanResult } from './lanes.ts';
import { packError, unpackError } from './packed-errors.ts';

/** Spans that a lane has in hand: one under way, one to go on with while the answer travels. */
const DEPTH = 2;

type Body<M> = M extends unknown ? Omit<M, 'id'> : never;

/** The near end: asks a thread and matches its answers with what was asked. */
export class LaneCaller {
  readonly #post: (message: ToLane) => void;
  readonly #waiting = new Map<
    number,
    { resolve(value: SpanResult | null): void; reject(error: unknown): void }
  >();
  #nextId = 1;
  #loss: InternalError | null = null;

  constructor(post: (message: ToLane) => void) {
    this.#post = post;
  }

  get isLost(): boolean {
    return this.#loss !== null;
  }

  /** True while answers are to come. */
  get isWaiting(): boolean {
    return this.#waiting.size > 0;
  }

  ask(message: Body<ToLane>): Promise<SpanResult | null> {
    if (this.#loss !== null) return Promise.reject(this.#loss);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#post({ ...message, id } as ToLane); // the body of one of them, and its id
    });
  }

  /** Takes what the thread says. */
  hear(message: FromLane): void {
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.type === 'done') waiting?.resolve(message.value);
    else waiting?.reject(unpackError(message.error));
  }

  /** The thread will not answer any more. */
  lose(error: InternalError): void {
    this.#loss ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#loss);
    this.#waiting.clear();
  }

  /** The thread as a lane of one aggregation. */
  open(order: LaneOrder, onClose = () => {}): Lane {
    // Not awaited: messages are answered in their order, and a start takes longer than many an aggregation.
    const opening = this.ask({ type: 'open', order });
    opening.catch(() => {}); // `begin` fails as well then
    return {
      depth: DEPTH,
      begin: async (stage) => {
        await opening;
        await this.ask({ type: 'begin', stage });
      },
      run: async (span) => (await this.ask({ type: 'run', span }))!, // a span has a result
      close: () => {
        this.ask({ type: 'close' }).catch(() => {}); // a lost thread has nothing to close
        onClose();
      },
    };
  }
}

export interface LaneHost {
  /** Opens what an order names, on this thread. */
  open(order: LaneOrder): LocalLane;
  post(message: FromLane): void;
  /** The aggregation has ended. */
  closed(): void;
}

/** The far end: gives what takes messages and carries them out, one behind the other. */
export function serveLane({ open, post, closed }: LaneHost): (message: ToLane) => void {
  let lane: LocalLane | null = null;
  // A span must not begin while another one waits for a read.
  let line: Promise<void> = Promise.resolve();

  async function carryOut(message: ToLane): Promise<SpanResult | null> {
    switch (message.type) {
      case 'open':
        lane = open(message.order);
        return null;
      case 'begin':
        await lane?.begin(message.stage);
        return null;
      case 'run':
        return (await lane?.run(message.span)) ?? null;
      case 'close':
        lane?.close();
        lane = null;
        return null;
    }
  }

  async function answer(message: ToLane): Promise<void> {
    const { id } = message;
    try {
      post({ id, type: 'done', value: await carryOut(message) });
    } catch (error) {
      post({ id, type: 'failed', error: packError(error) });
    }
    if (message.type === 'close') closed();
  }

  return (message) => {
    line = line.then(() => answer(message));
  };
}
