// Who does which ranges: each once, results in order, stretches where lanes read ahead. Lanes here do nothing but answer.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Lane, Span } from '../../src/aggregate/lanes.ts';
import { runPass } from '../../src/aggregate/passes.ts';
import type { RangeResult } from '../../src/aggregate/runner.ts';
import { Random } from '../helpers/random.ts';

const test = suite('aggregate/passes');

interface Way {
  readonly count: number;
  readonly rangeBytes: number;
  /** By lane the turns of the event loop that it takes to begin, and to do a span; null never begins. */
  readonly lanes: readonly { readonly depth: number; begins: number | null; readonly takes: () => number }[];
  readonly readsAhead: boolean;
}

/** Runs a pass, and tells which spans each lane was given. */
async function pass({ count, rangeBytes, lanes, readsAhead }: Way): Promise<Span[][]> {
  const given: Span[][] = lanes.map(() => []);
  const turns = async (left: number) => {
    for (let i = 0; i < left; i++) await new Promise<void>((resolve) => void setImmediate(resolve));
  };
  const seen: number[] = [];
  let most = 0;
  let arrived = 0;
  await runPass(
    lanes.map(
      ({ depth, begins, takes }, i): Lane => ({
        depth,
        readsAhead,
        begin: () => (begins === null ? new Promise(() => {}) : turns(begins)),
        async run(span) {
          given[i]!.push(span);
          await turns(takes());
          const results: RangeResult[] = [];
          for (let at = span.from; at < span.to; at++) results.push({ found: [], sums: Float64Array.of(at) });
          return { results, bytesRead: 0 };
        },
        close() {},
      }),
    ),
    {
      stage: { kind: 'scan' },
      count,
      rangeBytes,
      signal: undefined,
      onSpan({ results }) {
        arrived += results.length;
      },
      onRange({ sums }, index) {
        most = Math.max(most, arrived - seen.length);
        assert.is(sums![0], index);
        seen.push(index);
        return true;
      },
    },
  );
  assert.is(seen.length, count);
  assert.ok(most <= 3 * 256, `${most} results waited`);
  return given;
}

test('every range is done once, and results come in their order', async () => {
  const random = new Random(9);
  for (const readsAhead of [false, true]) {
    for (const count of [0, 1, 2, 7, 255, 256, 257, 1_000]) {
      for (const rangeBytes of [1, 5 << 20]) {
        for (const lanes of [1, 2, 4]) {
          const all = Array.from({ length: lanes }, (_, i) => ({
            depth: i === 0 ? 1 : 2,
            begins: random.integer(0, 9),
            takes: () => random.integer(0, 2),
          }));
          const given = (await pass({ count, rangeBytes, lanes: all, readsAhead })).flat();
          const done = given.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, i) => from + i));
          done.sort((a, b) => a - b);
          assert.equal(
            done,
            Array.from({ length: count }, (_, i) => i),
          );
        }
      }
    }
  }
});

/** How often a lane did not go on where it was. */
const jumps = (spans: readonly Span[]) =>
  spans.filter(({ from }, i) => i > 0 && spans[i - 1]!.to !== from).length;

test('lanes that read ahead stay in their stretches, the others take turns', async () => {
  const lanes = [1, 2, 2].map((depth) => ({ depth, begins: 1, takes: () => 1 }));
  const way = { count: 240, rangeBytes: 5 << 20, lanes };
  for (const spans of await pass({ ...way, readsAhead: true })) {
    assert.ok(spans.length > 5);
    assert.ok(jumps(spans) <= 3, `${jumps(spans)} jumps`);
  }
  assert.ok(jumps((await pass({ ...way, readsAhead: false }))[0]!) > 10);
});

test('a lane that never begins is not waited for, nor anything left for it', async () => {
  const lanes = [
    { depth: 1, begins: 0, takes: () => 1 },
    { depth: 2, begins: null, takes: () => 1 },
  ];
  for (const readsAhead of [false, true]) {
    const [first, second] = await pass({ count: 300, rangeBytes: 5 << 20, lanes, readsAhead });
    assert.equal(second, []);
    assert.is(jumps(first!), 0);
  }
});

test.run();
