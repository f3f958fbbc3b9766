/** One pass over the ranges of an aggregation on several lanes: who does which ranges, and in which order results count. */
import type { Lane, LaneStage, SpanResult } from './lanes.ts';
import type { RangeResult } from './runner.ts';

/** Bytes of input that a span is worth: a message costs about what a tenth of that does. */
const SPAN_BYTES = 8 << 20;

/** Spans that each lane gets at least, so that none waits long for another at the end. */
const SPANS_PER_LANE = 8;

/** Results that may wait for an earlier one, in spans of a lane: bounds what is kept in memory. */
const AHEAD = 8;

/** The same in ranges, where lanes have stretches of their own. */
const STRETCH = 256;

/** Bytes of input that are worth moving for, where lanes read ahead: what was fetched and not used is lost. */
const WORTH_MOVING = 24 << 20;

/** Ranges that nobody has begun yet. */
interface Stretch {
  next: number;
  end: number;
}

const left = ({ next, end }: Stretch) => end - next;

export interface PassOptions {
  readonly stage: LaneStage;
  /** How many ranges the pass has. */
  readonly count: number;
  /** Bytes of input of a range, roughly. */
  readonly rangeBytes: number;
  /** Looked at between spans. */
  readonly signal: Pick<AbortSignal, 'throwIfAborted'> | undefined;
  /** Called as results arrive, in any order. */
  readonly onSpan: (result: SpanResult, from: number) => void | Promise<void>;
  /** Called with the results in the order of the ranges; false ends the pass: what comes later does not matter. */
  readonly onRange: (result: RangeResult, index: number) => boolean | Promise<boolean>;
}

/**
 * Carries a pass out. With an error, the first in time, it ends when no lane is at work any more: what lanes use may be
 * closed then.
 */
export async function runPass(lanes: readonly Lane[], options: PassOptions): Promise<void> {
  const { count, rangeBytes, signal } = options;
  const fair = Math.ceil(count / (lanes.length * SPANS_PER_LANE));
  const isAlone = lanes.length === 1 && lanes[0]!.depth === 1;
  const size = isAlone ? 1 : Math.max(1, Math.min(fair, Math.round(SPAN_BYTES / rangeBytes)));
  // Lanes that read ahead have a stretch each; the others share one.
  const apart = lanes.some(({ readsAhead }) => readsAhead);
  const stretches = Array.from({ length: apart ? lanes.length : 1 }, () => ({ next: 0, end: 0 }));
  const longest = apart ? STRETCH : count;
  const window = apart ? 2 * STRETCH : size * lanes.length * AHEAD;
  const waiting = new Map<number, RangeResult>();
  let planned = 0;
  let settled = 0;
  let isOver = false;
  let failure: { readonly error: unknown } | null = null;
  let ordering = Promise.resolve();
  const wakers: (() => void)[] = [];
  const over = defer();

  const fail = (error: unknown) => {
    failure ??= { error };
    over.resolve();
    for (const wake of wakers.splice(0)) wake();
  };

  /** Takes what is next in order; one caller at a time. */
  const settle = async (): Promise<void> => {
    for (let result = waiting.get(settled); result !== undefined; result = waiting.get(settled)) {
      if (isOver || failure !== null) return;
      waiting.delete(settled);
      const answer = options.onRange(result, settled);
      const goesOn = answer instanceof Promise ? await answer : answer;
      settled++;
      if (!goesOn) isOver = true;
    }
    if (isOver || settled === count) over.resolve();
    for (const wake of wakers.splice(0)) wake();
  };

  /** Makes sure that a stretch has ranges, where some are left: half of what another one has, or new ones. */
  const fill = (own: Stretch): boolean => {
    if (left(own) > 0) return true;
    const most = stretches.reduce((a, b) => (left(b) > left(a) ? b : a));
    if (left(most) * rangeBytes > WORTH_MOVING) {
      own.end = most.end;
      own.next = most.end -= left(most) >> 1;
    } else {
      own.next = planned;
      own.end = planned = Math.min(count, planned + longest);
    }
    return left(own) > 0;
  };

  const work = async (lane: Lane, own: Stretch, ready: Promise<void>): Promise<void> => {
    // A thread that starts while the others do all the work is not waited for.
    await Promise.race([ready, over.promise]);
    while (!isOver && failure === null && fill(own)) {
      const from = own.next;
      if (from >= settled + window) {
        await new Promise<void>((resolve) => wakers.push(resolve));
        continue;
      }
      signal?.throwIfAborted();
      const to = Math.min(own.end, from + size);
      own.next = to;
      const result = await lane.run({ from, to });
      const taken = options.onSpan(result, from);
      if (taken !== undefined) await taken;
      for (const [i, range] of result.results.entries()) waiting.set(from + i, range);
      ordering = ordering.then(settle);
      await ordering;
    }
  };

  if (count === 0) over.resolve();
  await Promise.all(
    lanes.flatMap((lane, i) => {
      const ready = lane.begin(options.stage);
      const own = stretches[i] ?? stretches[0]!;
      return Array.from({ length: lane.depth }, () => work(lane, own, ready).catch(fail));
    }),
  );
  const failed = failure as { readonly error: unknown } | null; // set in a callback
  if (failed !== null) throw failed.error;
}

/** A promise that somebody else ends. */
function defer(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((end) => {
    resolve = end;
  });
  return { promise, resolve };
}
