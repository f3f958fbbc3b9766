import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openWeights } from '../../src/formats/open.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { DTYPES, type DType } from '../../src/tensor/dtypes.ts';
import { runs, updates } from '../helpers/arbitraries.ts';
import { failsWith } from '../helpers/errors.ts';
import { testSeed } from '../helpers/random.ts';
import { comesBack, encodingOf, fileOf } from '../helpers/round-trips.ts';

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

const test = suite('formats/safetensors, properties');
const seed = testSeed();
const format = 'safetensors';
const dtypes = (Object.keys(DTYPES) as DType[]).filter((dtype) => !['complex128', 'void16'].includes(dtype));
const storable = updates({ dtypes }).filter(({ weighting }) => Number.isFinite(weighting));
const options = ({ weightingType }: { weightingType: 'int' | 'float' }) =>
  ({ format, weightingType }) as const;

test('what is written is read as the same', async () => {
  await fc.assert(
    fc.asyncProperty(storable, async (update) => {
      const { payloads } = await encodingOf(update, options(update));
      const hasNoNames = update.tensors.every((tensor) => tensor.name === null);
      const name = (given: string | null, position: number) =>
        given ?? (hasNoNames ? null : `layer_${position}`);
      const bytes = await comesBack(
        update,
        options(update),
        (tensor, i) => ({ ...tensor, name: name(tensor.name, i) }),
        hasNoNames,
      );
      const { layout } = await openWeights(memorySource(bytes));
      assert.is(layout.weightingType, update.weightingType);
      const offsets = new Map(layout.tensors.map((tensor) => [tensor.name, tensor.byteOffset]));
      for (const [i, tensor] of update.tensors.entries()) {
        const offset = hasNoNames ? layout.tensors[i]!.byteOffset : offsets.get(name(tensor.name, i));
        assert.is(offset, payloads[i]!.offset);
      }
    }),
    { seed, numRuns: runs(5_000) },
  );
});

test('a header follows the rules of the reference, read by another reader of JSON', async () => {
  await fc.assert(
    fc.asyncProperty(storable, async (update) => {
      const bytes = Buffer.from(await fileOf(update, options(update)));
      const length = Number(bytes.readBigUInt64LE());
      assert.is(length % 8, 0);
      assert.is(bytes[8], 0x7b);
      const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<string, Entry>;
      // A key __proto__ is an own property of what JSON.parse gives.
      const entries = Object.entries(header).filter(([name]) => name !== '__metadata__');
      assert.is(entries.length, update.tensors.length);
      let end = 0;
      for (const { data_offsets } of entries
        .map(([, entry]) => entry)
        .sort((a, b) => a.data_offsets[0] - b.data_offsets[0] || a.data_offsets[1] - b.data_offsets[1])) {
        assert.is(data_offsets[0], end);
        end = data_offsets[1];
      }
      assert.is(8 + length + end, bytes.byteLength);
    }),
    { seed, numRuns: runs(2_000) },
  );
});

test('a file that ends early or late is refused, wherever it is cut', async () => {
  await fc.assert(
    fc.asyncProperty(storable, fc.nat(), async (update, cut) => {
      const bytes = await fileOf(update, options(update));
      const shorter = bytes.subarray(0, cut % bytes.byteLength);
      await failsWith('st-header-size|st-offsets|format-unknown|format-unsupported|npy-truncated', () =>
        openWeights(memorySource(shorter)),
      );
      const longer = new Uint8Array(bytes.byteLength + 1 + (cut % 100));
      longer.set(bytes);
      await failsWith('st-offsets', () => openWeights(memorySource(longer)));
    }),
    { seed, numRuns: runs(3_000) },
  );
});

test.run();
