import {
  ANSWER_BYTES,
  ANSWER_COUNT,
  ANSWER_DETAIL,
  ANSWER_VALUE,
  PICKLE_STATE_BYTES,
  PICKLE_TEXT_LIMIT,
  READ_DONE,
  READ_MEMORY,
  READ_MORE,
  READ_NEED,
} from '../../assembly/abi.ts';
import type { Core } from './core.ts';
import {
  type ReadNeed,
  type ReadRefusal,
  readNeed,
  readRecord,
  readRefusal,
  readViewRecord,
  type TensorRecord,
  type ViewRecord,
} from './records.ts';

/** Records are handed out in batches of this many bytes. */
const BATCH_BYTES = 16_384;

/** The longest window a walk takes in one call, in bytes. What it needs at once is far below. */
export const PICKLE_WINDOW_BYTES = 65_536;

/** Least arena of a walk in bytes, window and records included. Some ten thousand tensors fit four MiB. */
export const PICKLE_ARENA_BYTES =
  PICKLE_WINDOW_BYTES + BATCH_BYTES + PICKLE_STATE_BYTES + 8 * PICKLE_TEXT_LIMIT;

/** What a pickle says how much its update counts. */
export interface WalkedWeighting {
  readonly kind: 'done';
  readonly weighting: number;
  readonly isFloat: boolean;
}

/** Records in order, or the refusal of one: `tensor` is its position. */
type Taken<R> =
  | { readonly kind: 'tensors'; readonly records: readonly R[] }
  | (ReadRefusal & { readonly tensor: number });

/**
 * A walk over the pickle of a weight file or of a torch archive. It takes what is left of the core's arena, up to a bound.
 *
 * `walk` until it answers 'done', then `takeTensors`, or for a torch archive (which has no weighting) `takeViews`.
 */
export class PickleWalk {
  readonly #core: Core;
  readonly #window: number;
  readonly #out: number;
  readonly #state: number;

  /**
   * @param begin position of the pickle in its file
   * @param end where it must end
   * @param isTorch whether it is that of a torch archive
   * @param mostBytes of the arena, for what the walk has to remember
   */
  constructor(core: Core, begin: number, end: number, isTorch = false, mostBytes = Number.POSITIVE_INFINITY) {
    this.#core = core;
    this.#window = core.take(PICKLE_WINDOW_BYTES);
    this.#out = core.take(BATCH_BYTES);
    const bytes = Math.floor(Math.min(core.free - 16, mostBytes) / 16) * 16;
    this.#state = core.take(bytes);
    core.exports.openPickle(this.#state, bytes, begin, end, isTorch);
  }

  /** Where the next window goes: at most PICKLE_WINDOW_BYTES. */
  window(byteLength: number): Uint8Array {
    return this.#core.bytes(this.#window, byteLength);
  }

  /**
   * Walks through the first `byteLength` bytes of `window`, which stand in the file from `offset` on.
   * 'memory' means that the arena is too small: begin again with a larger one.
   */
  walk(byteLength: number, offset: number): WalkedWeighting | ReadNeed | ReadRefusal | { kind: 'memory' } {
    const status = this.#core.exports.walkPickle(this.#state, this.#window, byteLength, offset);
    const answer = this.#core.view(this.#state, ANSWER_BYTES);
    if (status === READ_NEED) return readNeed(answer);
    if (status === READ_MEMORY) return { kind: 'memory' };
    if (status !== READ_DONE) return readRefusal(this.#core, answer, status);
    return {
      kind: 'done',
      weighting: answer.getFloat64(ANSWER_VALUE, true),
      isFloat: answer.getUint32(ANSWER_DETAIL, true) === 1,
    };
  }

  /** The tensors in order, or why there is one that cannot be accepted (`tensor` is its position). */
  takeTensors(): Taken<TensorRecord> {
    return this.#take(readRecord);
  }

  /** The same for a torch archive. */
  takeViews(): Taken<ViewRecord> {
    return this.#take(readViewRecord);
  }

  #take<R>(read: (core: Core, address: number) => { record: R; size: number }): Taken<R> {
    const core = this.#core;
    const answer = core.view(this.#state, ANSWER_BYTES);
    const records: R[] = [];
    for (;;) {
      const status = core.exports.takeTensors(this.#state, this.#out, BATCH_BYTES);
      const count = answer.getUint32(ANSWER_COUNT, true);
      if (status !== READ_DONE && status !== READ_MORE) {
        return { ...readRefusal(core, answer, status), tensor: count };
      }
      let address = this.#out;
      for (let i = 0; i < count; i++) {
        const { record, size } = read(core, address);
        records.push(record);
        address += size;
      }
      if (status === READ_DONE) return { kind: 'tensors', records };
    }
  }
}
