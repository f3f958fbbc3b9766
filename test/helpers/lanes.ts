import { type Lane, type LaneOpener, LocalLane } from '../../src/aggregate/lanes.ts';
import { crc32 } from '../../src/formats/crc32.ts';
import type { ByteSource } from '../../src/tensor/bytes.ts';
import type { Random } from './random.ts';

/**
 * Lanes that behave as those of other threads do, on this one: all that they get and give is cloned, one span is done at a
 * time, and answers come in an order that `random` decides. They read `sources` and send blocks back.
 */
export function distantLanes(count: number, sources: readonly ByteSource[], random: Random): LaneOpener {
  return async (order) => {
    const plan = structuredClone(order.plan);
    const readsAhead = random.integer(0, 1) === 1;
    return Array.from({ length: count }, (): Lane => {
      const lane = new LocalLane(plan, sources, crc32, null);
      let line: Promise<unknown> = Promise.resolve();
      const travel = () =>
        new Promise<void>((resolve) => {
          const turns = random.integer(0, 3);
          const wait = (left: number) => (left === 0 ? resolve() : void setImmediate(wait, left - 1));
          wait(turns);
        });
      // As between threads: messages overtake those of other lanes, never one another.
      const ask = async <T>(work: () => Promise<T>): Promise<T> => {
        const answer = line.then(travel).then(work);
        line = answer.catch(() => {});
        const value = structuredClone(await answer);
        await travel();
        return value;
      };
      return {
        depth: 2,
        readsAhead,
        begin: (stage) => ask(() => lane.begin(structuredClone(stage))),
        run: (span) => ask(() => lane.run(span)),
        close: () => void line.then(() => lane.close()),
      };
    });
  };
}
