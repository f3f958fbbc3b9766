import { deflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { crc32 } from '../../src/formats/crc32.ts';
import { openWeights } from '../../src/formats/open.ts';
import { readTensors } from '../../src/formats/read.ts';
import { unpackWeights } from '../../src/formats/weights.ts';
import { memoryScratch, memorySource } from '../../src/tensor/bytes.ts';
import { DTYPES, type DType } from '../../src/tensor/dtypes.ts';
import { runs, updates } from '../helpers/arbitraries.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { bytesOf, u32 } from '../helpers/pickles.ts';
import { testSeed } from '../helpers/random.ts';
import { comesBack, encodingOf, fileOf } from '../helpers/round-trips.ts';

const test = suite('formats/npz, properties');
const seed = testSeed();
const format = 'npz';
const dtypes = (Object.keys(DTYPES) as DType[]).filter((dtype) => dtype !== 'bfloat16');
/** Names of members: relative, without detours. All named or none: a mix of both is told apart by names alone. */
const names = fc
  .oneof(
    fc.stringMatching(/^[a-z_]{1,8}(\/[a-z_]{1,8})?\.[0-9]{1,2}\.(weight|bias)$/),
    fc.stringMatching(/^[a-zäöü層😀]{1,12}$/u),
    fc.constantFrom('__proto__', 'constructor', 'x'.repeat(1_000)),
  )
  .filter((name) => name !== 'weighting');
const storable = fc
  .oneof(updates({ dtypes, names, named: 'all' }), updates({ dtypes, named: 'none' }))
  .map(({ weighting, tensors }) => ({ weighting, tensors }));

test('what is written is read as the same', async () => {
  await fc.assert(
    fc.asyncProperty(storable, async (update) => {
      const { payloads } = await encodingOf(update, { format });
      const bytes = await comesBack(update, { format });
      const weights = await openWeights(memorySource(bytes));
      assert.is(weights.unpack, null);
      for (const [i, { byteOffset }] of weights.layout.tensors.entries()) {
        assert.is(byteOffset, payloads[i]!.offset);
      }
      await unpackWeights(weights, { scratch: memoryScratch });
    }),
    { seed, numRuns: runs(2_000) },
  );
});

test('one changed byte of an element is found by the checksum', async () => {
  await fc.assert(
    fc.asyncProperty(storable, fc.nat(), async (update, at) => {
      const bytes = await fileOf(update, { format });
      const { layout } = await openWeights(memorySource(bytes));
      const full = layout.tensors.filter(({ byteLength }) => byteLength > 0);
      fc.pre(full.length > 0);
      const { byteOffset, byteLength } = full[at % full.length]!;
      bytes[byteOffset! + (at % byteLength)]! ^= 1 << (at % 8);
      const changed = await openWeights(memorySource(bytes));
      await failsWith('zip-crc', () => unpackWeights(changed, { scratch: memoryScratch }));
    }),
    { seed, numRuns: runs(1_000) },
  );
});

/** An archive of deflated members, made by hand: local headers, data, directory, end record. */
function deflated(members: readonly { name: string; bytes: Uint8Array }[]): Uint8Array {
  const locals: Uint8Array[] = [];
  const entries: Uint8Array[] = [];
  let offset = 0;
  for (const { name, bytes } of members) {
    const packed = deflateRawSync(bytes);
    const path = Buffer.from(`${name}.npy`);
    const u16 = (n: number) => u32(n).slice(0, 2);
    const common = bytesOf(
      `\x14\0\0\x08\x08\0\0\0\x21\0${u32(crc32(bytes, 0))}${u32(packed.byteLength)}${u32(bytes.byteLength)}`,
      `${u16(path.byteLength)}\0\0`,
    );
    const local = bytesOf('PK\x03\x04', common, path, packed);
    entries.push(bytesOf('PK\x01\x02\x14\0', common, `${'\0'.repeat(10)}${u32(offset)}`, path));
    locals.push(local);
    offset += local.byteLength;
  }
  const directory = bytesOf(...entries);
  const count = u32(members.length).slice(0, 2);
  const end = `PK\x05\x06\0\0\0\0${count}${count}${u32(directory.byteLength)}${u32(offset)}\0\0`;
  return bytesOf(...locals, directory, end);
}

test('deflated members are unpacked to the same elements', async () => {
  await fc.assert(
    fc.asyncProperty(storable, async (update) => {
      fc.pre(update.tensors.length > 0);
      const members = await Promise.all(
        update.tensors.map(async (tensor, i) => ({
          name: tensor.name ?? `layer_${i}`,
          bytes: await fileOf({ weighting: null, tensors: [tensor] }, { format: 'npy' }),
        })),
      );
      const weights = await openWeights(memorySource(deflated(members)));
      const unpacked = await unpackWeights(weights, { scratch: memoryScratch });
      const read = await readTensors(unpacked.source, unpacked.layout);
      assert.is(read.tensors.length, update.tensors.length);
      for (const [i, { data, ...rest }] of read.tensors.entries()) {
        const { data: expected, ...described } = update.tensors[i]!;
        assert.equal(rest, described);
        sameBytes(data, expected, `tensor ${i}`);
      }
      await unpacked.source.close();
    }),
    { seed, numRuns: runs(300) },
  );
});

/** Where an archive is cut decides what is missed first. */
const CUT =
  'zip-truncated|zip-mismatch|zip-not-zip|zip-overlap|npy-truncated|format-unknown|format-unsupported';

test('an archive that ends early or late is refused, wherever it is cut', async () => {
  await fc.assert(
    fc.asyncProperty(storable, fc.nat(), async (update, cut) => {
      const bytes = await fileOf(update, { format });
      const shorter = bytes.subarray(0, cut % bytes.byteLength);
      await failsWith(CUT, () => openWeights(memorySource(shorter)));
      const longer = new Uint8Array(bytes.byteLength + 1 + (cut % 100));
      longer.set(bytes);
      await failsWith(CUT, () => openWeights(memorySource(longer)));
    }),
    { seed, numRuns: runs(2_000) },
  );
});

test.run();
