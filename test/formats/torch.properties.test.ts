import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openWeights } from '../../src/formats/open.ts';
import { unpackWeights } from '../../src/formats/weights.ts';
import { memoryScratch, memorySource } from '../../src/tensor/bytes.ts';
import { DTYPES, type DType } from '../../src/tensor/dtypes.ts';
import { runs, updates } from '../helpers/arbitraries.ts';
import { failsWith } from '../helpers/errors.ts';
import { testSeed } from '../helpers/random.ts';
import { comesBack, encodingOf, fileOf } from '../helpers/round-trips.ts';

const test = suite('formats/torch, properties');
const seed = testSeed();
const format = 'torch';
const WITHOUT_STORAGE = ['uint16', 'uint32', 'uint64', 'void16'];
const dtypes = (Object.keys(DTYPES) as DType[]).filter((dtype) => !WITHOUT_STORAGE.includes(dtype));
const storable = updates({ dtypes, named: 'all' }).map(({ tensors }) => ({ weighting: null, tensors }));

test('what is written is read as the same, at multiples of 64', async () => {
  await fc.assert(
    fc.asyncProperty(storable, async (update) => {
      const { payloads } = await encodingOf(update, { format });
      const bytes = await comesBack(update, { format });
      const weights = await openWeights(memorySource(bytes));
      for (const [i, { byteOffset, byteLength }] of weights.layout.tensors.entries()) {
        if (byteLength === 0) continue;
        assert.is(byteOffset, payloads[i]!.offset);
        assert.is(payloads[i]!.offset % 64, 0);
      }
      await unpackWeights(weights, { scratch: memoryScratch });
    }),
    { seed, numRuns: runs(1_500) },
  );
});

test('a state dict that is cut or followed by something is refused', async () => {
  await fc.assert(
    fc.asyncProperty(storable, fc.nat(), async (update, cut) => {
      const bytes = await fileOf(update, { format });
      const shorter = bytes.subarray(0, cut % bytes.byteLength);
      await failsWith(CUT, () => openWeights(memorySource(shorter)));
      const longer = new Uint8Array(bytes.byteLength + 1 + (cut % 100));
      longer.set(bytes);
      await failsWith(CUT, () => openWeights(memorySource(longer)));
    }),
    { seed, numRuns: runs(1_500) },
  );
});

/** Where an archive is cut decides what is missed first. */
const CUT =
  'zip-truncated|zip-mismatch|zip-not-zip|zip-overlap|npy-truncated|format-unknown|format-unsupported';

test.run();
