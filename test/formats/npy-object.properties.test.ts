import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openWeights } from '../../src/formats/open.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { runs, updates } from '../helpers/arbitraries.ts';
import { failsWith } from '../helpers/errors.ts';
import { counted } from '../helpers/pickles.ts';
import { testSeed } from '../helpers/random.ts';
import { comesBack, encodingOf, fileOf } from '../helpers/round-trips.ts';

const test = suite('formats/npy-object, properties');
const seed = testSeed();
const format = 'npy-object';

test('what is written is read as the same', async () => {
  await fc.assert(
    fc.asyncProperty(updates(), async (update) => {
      const options = { format, weightingType: update.weightingType } as const;
      const encoding = await encodingOf(update, options);
      const bytes = await comesBack(update, options);
      const { layout } = await openWeights(memorySource(bytes));
      assert.is(layout.weightingType, update.weightingType);
      for (const [i, { byteOffset, byteLength }] of layout.tensors.entries()) {
        // An empty payload that was stored before is not stored again, nor is one of a byte that was.
        const payload = encoding.payloads[i]!;
        if (byteLength !== 1) assert.is(byteLength, payload.byteLength);
        if (payload.byteLength > 0) assert.is(byteOffset, payload.offset);
      }
    }),
    { seed, numRuns: runs(5_000) },
  );
});

test('a layout takes little more than the bytes between the payloads', async () => {
  await fc.assert(
    fc.asyncProperty(updates({ maxTensors: 30 }), async (update) => {
      const { literals } = await encodingOf(update, { format, weightingType: update.weightingType });
      const bytes = await fileOf(update, { format, weightingType: update.weightingType });
      const source = counted(memorySource(bytes));
      await openWeights(source);
      const between = literals.reduce((sum, literal) => sum + literal.bytes.byteLength, 0);
      const limit = 4 * between + 512 * (update.tensors.length + 2);
      assert.ok(source.count.bytes <= limit, `${source.count.bytes} bytes read, ${between} between payloads`);
      assert.ok(
        source.count.calls <= 2 * update.tensors.length + between / 128 + 4,
        `${source.count.calls} calls`,
      );
    }),
    { seed, numRuns: runs(1_500) },
  );
});

test('a file that ends early or late is refused, wherever it is cut', async () => {
  await fc.assert(
    fc.asyncProperty(updates({ maxTensors: 4 }), fc.nat(), async (update, cut) => {
      const bytes = await fileOf(update, { format, weightingType: update.weightingType });
      const error = await failsWith('npy-truncated|pickle-truncated|pickle-protocol', () =>
        openWeights(memorySource(bytes.subarray(0, cut % bytes.byteLength), 'cut')),
      );
      assert.match(error.message, /^cut: /);
      const longer = new Uint8Array(bytes.byteLength + 1 + (cut % 100));
      longer.set(bytes);
      await failsWith('npy-data-trailing', () => openWeights(memorySource(longer)));
    }),
    { seed, numRuns: runs(5_000) },
  );
});

test('sources that answer later give the same layout', async () => {
  await fc.assert(
    fc.asyncProperty(updates({ maxTensors: 4 }), async (update) => {
      const source = memorySource(await fileOf(update, { format, weightingType: update.weightingType }));
      const later = {
        ...source,
        readInto: async (at: number, into: Uint8Array) => source.readInto(at, into),
      };
      const [atOnce, awaited] = await Promise.all([openWeights(source), openWeights(later)]);
      assert.equal(awaited.layout, atOnce.layout);
    }),
    { seed, numRuns: runs(1_500) },
  );
});

test.run();
