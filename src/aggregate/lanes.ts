/**
 * Threads that carry out ranges. The coordinator (`aggregation.ts`) gives each lane spans of ranges, a few ahead, and
 * takes their results in any order. Lanes share nothing but what hosts share anyway: open files, Blobs. They talk in
 * messages, so a lane may be this thread, a worker thread of Node or a Web Worker.
 */
import type { Crc32 } from '../formats/crc32.ts';
import type { ByteSource, SinkHandle, SourceHandle } from '../tensor/bytes.ts';
import type { Plan } from './plan.ts';
import { type Outlets, type RangeResult, RangeRunner, type Stage } from './runner.ts';

/** Ranges [from, to) of the stage. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** What a span gave, range by range. */
export interface SpanResult {
  readonly results: readonly RangeResult[];
  /** Bytes read for it. */
  readonly bytesRead: number;
  /** Where the lane cannot write itself: the bytes of the output, range by range. */
  readonly blocks?: readonly Uint8Array[] | undefined;
}

export interface Lane {
  /** Spans that it is given at a time: one under way, and for a thread elsewhere one to go on with. */
  readonly depth: number;
  /** Prepares for a stage. */
  begin(stage: Stage): Promise<void>;
  run(span: Span): Promise<SpanResult>;
  /** Ends the aggregation on this lane. */
  close(): void;
}

/** What a lane on another thread works from. Plain data. */
export interface LaneOrder {
  readonly plan: Plan;
  readonly sources: readonly SourceHandle[];
  /** Null: blocks come back with the results. */
  readonly sink: SinkHandle | null;
  /** Null where the rule has no state. */
  readonly state: SinkHandle | null;
}

/** Opens lanes on other threads, all of them for one aggregation. */
export type LaneOpener = (order: LaneOrder) => Promise<readonly Lane[]>;

/** The lane of the thread that calls. */
export class LocalLane implements Lane {
  readonly depth = 1;
  readonly #runner: RangeRunner;
  readonly #outlets: Outlets | null;
  readonly #yields: boolean;
  #stage: Stage | null = null;

  /**
   * @param crc32 where outputs have checksums
   * @param outlets null: blocks are copied into the results
   * @param yields let the messages of other lanes through between spans
   */
  constructor(
    plan: Plan,
    sources: readonly ByteSource[],
    crc32: Crc32 | undefined,
    outlets: Outlets | null,
    yields = false,
  ) {
    this.#runner = new RangeRunner(plan, sources, crc32);
    this.#outlets = outlets;
    this.#yields = yields;
  }

  async begin(stage: Stage): Promise<void> {
    this.#stage = stage;
    await this.#runner.begin(stage);
  }

  async run({ from, to }: Span): Promise<SpanResult> {
    const stage = this.#stage;
    if (stage === null) throw new RangeError('no stage was begun');
    if (this.#yields) await nextTurn();
    const before = this.#runner.bytesRead;
    const results: RangeResult[] = [];
    const blocks: Uint8Array[] = [];
    const outlets = this.#outlets ?? {
      write: (_: number, bytes: Uint8Array) => void blocks.push(bytes.slice()),
      writeState: () => {}, // such a lane gets no rules with state
    };
    for (let i = from; i < to; i++) {
      results.push(await this.#runner.run(this.#runner.rangeAt(i), stage, outlets));
    }
    return {
      results,
      bytesRead: this.#runner.bytesRead - before,
      blocks: this.#outlets === null ? blocks : undefined,
    };
  }

  close(): void {
    this.#runner.close();
  }
}

/** Ends with the next turn of the event loop: what has arrived until then has been heard. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === 'function') return void setImmediate(resolve);
    // Browsers let a timer wait for 4 ms; a message to oneself comes with the next turn.
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
