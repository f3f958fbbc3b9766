// One digest for each rule, whatever the order of arrival, the size of blocks, the number of threads: combinations drawn at
// random, 1,000 for each rule with CAMBIUM_LONG.
import { createHash } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Aggregation } from '../../src/aggregate/aggregation.ts';
import { openStrategy, STRATEGY_NAMES } from '../../src/aggregate/strategies/index.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import { type ByteSource, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { distantLanes } from '../helpers/lanes.ts';
import { vectors } from '../helpers/models.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { PARAMETERS } from '../helpers/strategies.ts';

const test = suite('equality');
const COMBINATIONS = process.env.CAMBIUM_LONG ? 1000 : 25;
const LEAVES = 7;
const seed = testSeed();

const SHAPES: readonly (readonly [DType, number])[] = [
  ['float32', 9_001],
  ['float64', 4_100],
  ['bfloat16', 4_097],
  ['int32', 50],
  ['float32', 1],
];

function model(name: string, random: Random) {
  const { tensors, byteLength } = vectors(SHAPES);
  const bytes = new Uint8Array(byteLength);
  const view = new DataView(bytes.buffer);
  for (const { dtype, shape, byteOffset } of tensors) {
    for (let i = 0; i < shape[0]!; i++) {
      // Some values that many leaves have, some that cancel, the rest of any size.
      const value = random.integer(0, 9) === 0 ? 0.25 : random.gauss() * 2 ** random.integer(-20, 3);
      if (dtype === 'float32') view.setFloat32(byteOffset + 4 * i, value, true);
      else if (dtype === 'float64') view.setFloat64(byteOffset + 8 * i, value, true);
      else if (dtype === 'int32') view.setInt32(byteOffset + 4 * i, random.integer(-300, 300), true);
      else
        view.setUint16(
          byteOffset + 2 * i,
          random.integer(0, 1) * 0x8000 + 0x3c00 + random.integer(0, 900),
          true,
        );
    }
  }
  const source: ByteSource = {
    ...memorySource(bytes, name),
    handle: { kind: 'file', name, byteLength, descriptor: -1 }, // never opened: the lanes of this test know the sources
  };
  return { leaf: name, source, layout: { tensors } };
}

/** The leaves in any order. */
function shuffled<T>(list: readonly T[], random: Random): T[] {
  const rest = [...list];
  return list.map(() => rest.splice(random.integer(0, rest.length - 1), 1)[0]!);
}

for (const name of STRATEGY_NAMES) {
  test(`${name}: ${COMBINATIONS} combinations, one digest`, async () => {
    const random = new Random(seed);
    const global = model('global', random);
    const leaves = Array.from({ length: LEAVES }, (_, i) => ({
      ...model(`leaf-${i}`, random),
      weighting: random.integer(0, 3) === 0 ? 0.1 * random.integer(1, 99) : random.integer(1, 5000),
    }));
    const steps = new Map(leaves.map(({ leaf }, i) => [leaf, i + 1]));
    const perLeaf = name === 'fednova' || name === 'buffered' ? steps : undefined;
    const strategy = openStrategy(name, PARAMETERS[name], perLeaf);
    const digests = new Map<string, string>();
    for (let n = 0; n < COMBINATIONS; n++) {
      const blockBytes =
        random.integer(0, 3) === 0 ? undefined : 2 ** random.integer(10, 17) + random.integer(0, 999);
      const lanes = [1, 2, 4][random.integer(0, 2)]!;
      const options = { strategy, model: global, blockBytes };
      const aggregation = await Aggregation.open(shuffled(leaves, random), options);
      const encoding = await encodeWeights({
        format: 'npy-object',
        weighting: 1,
        tensors: aggregation.tensors,
      });
      const sink = memorySink(encoding.byteLength);
      const places: number[] = [];
      let stateBytes = 0;
      for (const { dtype, shape } of aggregation.stateTensors) {
        places.push(stateBytes);
        stateBytes += shape[0]! * itemSize(dtype);
      }
      // A state that other lanes cannot write keeps the work on this one.
      const state = memorySink(stateBytes);
      const sources = [...(strategy.needsModel ? [global] : []), ...leaves].map(({ source }) => source);
      await aggregation.run(sink, encoding, {
        openLanes: lanes === 1 ? undefined : distantLanes(lanes - 1, sources, random),
        state: stateBytes === 0 ? undefined : { sink: state, byteOffsets: places },
      });
      await aggregation.close();
      const digest = createHash('sha256').update(sink.bytes).update(state.bytes).digest('hex');
      digests.set(digest, `blocks of ${blockBytes}, ${lanes} lanes`);
    }
    assert.is(digests.size, 1, [...digests.values()].join('; '));
  });
}

test.run();
