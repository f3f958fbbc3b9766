/**
 * Threads that carry out ranges. The coordinator (`aggregation.ts`) gives each lane spans of ranges, a few ahead, and
 * takes their results in any order. Lanes share nothing but what hosts share anyway: open files, Blobs. They talk in
 * messages, so a lane may be this thread, a worker thread of Node or a Web Worker.
 */
import type { Crc32 } from '../formats/crc32.ts';
import type { ByteSink, ByteSource, SinkHandle, SourceHandle } from '../tensor/bytes.ts';
import type { Plan } from './plan.ts';
import { type Outlets, type RangeResult, RangeRunner, type Stage } from './runner.ts';
import type { SumPlan, SumRunner, SumStage } from './sum-runner.ts';

/** What is done with every range, of an aggregation or of an exact sum. */
export type LaneStage = Stage | SumStage;

/** What the ranges belong to. */
export type LanePlan = Plan | SumPlan;

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
  /** Ranges that follow each other cost far less than others, as streams do: such lanes get stretches of their own. */
  readonly readsAhead?: boolean | undefined;
  /** Prepares for a stage. */
  begin(stage: LaneStage): Promise<void>;
  run(span: Span): Promise<SpanResult>;
  /** Ends the aggregation on this lane. */
  close(): void;
}

/** What a lane on another thread works from. Plain data. */
export interface LaneOrder {
  readonly plan: LanePlan;
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
  readonly #plan: LanePlan;
  readonly #sources: readonly ByteSource[];
  readonly #crc32: Crc32 | undefined;
  readonly #outlets: Outlets | null;
  readonly #yields: boolean;
  #runner: RangeRunner | SumRunner | null = null;
  #run: ((index: number, outlets: Outlets) => Promise<RangeResult>) | null = null;

  /**
   * @param crc32 where outputs have checksums
   * @param outlets null: blocks are copied into the results
   * @param yields let the messages of other lanes through between spans
   */
  constructor(
    plan: LanePlan,
    sources: readonly ByteSource[],
    crc32: Crc32 | undefined,
    outlets: Outlets | null,
    yields = false,
  ) {
    this.#plan = plan;
    this.#sources = sources;
    this.#crc32 = crc32;
    this.#outlets = outlets;
    this.#yields = yields;
  }

  async begin(stage: LaneStage): Promise<void> {
    this.close();
    // A lane's plan and its stages are of one kind.
    if (stage.kind === 'sum') {
      // Loaded when there is something to add up: most pages and lanes never do.
      const { SumRunner } = await import('./sum-runner.ts');
      const checksum = this.#crc32 ?? (await import('../formats/crc32.ts')).crc32;
      const runner = new SumRunner(this.#plan as SumPlan, this.#sources, checksum);
      this.#runner = runner;
      this.#run = (index, outlets) => runner.run(runner.rangeAt(index), stage, outlets);
      return runner.begin(stage);
    }
    const runner = new RangeRunner(this.#plan as Plan, this.#sources, this.#crc32);
    this.#runner = runner;
    this.#run = (index, outlets) => runner.run(runner.rangeAt(index), stage, outlets);
    return runner.begin(stage);
  }

  async run({ from, to }: Span): Promise<SpanResult> {
    const runner = this.#runner;
    if (runner === null || this.#run === null) throw new RangeError('no stage was begun');
    if (this.#yields) await nextTurn();
    const before = runner.bytesRead;
    const results: RangeResult[] = [];
    const blocks: Uint8Array[] = [];
    const outlets = this.#outlets ?? {
      write: (_: number, bytes: Uint8Array) => void blocks.push(bytes.slice()),
      writeState: () => {}, // such a lane gets no rules with state
    };
    for (let i = from; i < to; i++) {
      results.push(await this.#run(i, outlets));
    }
    return {
      results,
      bytesRead: runner.bytesRead - before,
      blocks: this.#outlets === null ? blocks : undefined,
    };
  }

  close(): void {
    this.#runner?.close();
  }
}

/** Where the results of a work go. */
interface LaneSinks {
  readonly sink: ByteSink;
  /** Of rules that keep a state. */
  readonly state: { readonly sink: Pick<ByteSink, 'write' | 'handle'> } | undefined;
}

/** This thread's lane and, where every source can be read elsewhere, those of other threads. */
export async function openLanes(
  plan: LanePlan,
  sources: readonly ByteSource[],
  { sink, state }: LaneSinks,
  host: { readonly openLanes?: LaneOpener | undefined; readonly crc32?: Crc32 | undefined },
): Promise<Lane[]> {
  const handles = sources.flatMap(({ handle }) => handle ?? []);
  const canShare =
    handles.length === sources.length &&
    (state === undefined || (sink.handle !== undefined && state.sink.handle !== undefined));
  const others =
    host.openLanes === undefined || !canShare
      ? []
      : await host.openLanes({
          plan,
          sources: handles,
          sink: sink.handle ?? null,
          state: state?.sink.handle ?? null,
        });
  const outlets: Outlets = {
    write: (offset, bytes) => sink.write(offset, bytes),
    writeState: (offset, bytes) => state!.sink.write(offset, bytes), // a rule with a state has a place for it
  };
  return [new LocalLane(plan, sources, host.crc32, outlets, others.length > 0), ...others];
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
