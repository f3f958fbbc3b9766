// Every averaging case of the conformance corpus: fixtures/fedavg.json says what must come out, to the bit.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Aggregation, type AggregationOptions } from '../../src/aggregate/aggregation.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import { openWeights } from '../../src/formats/open.ts';
import { unpackWeights } from '../../src/formats/weights.ts';
import { memoryScratch, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { Random, testSeed } from '../helpers/random.ts';

interface Expected {
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly correctly_rounded: string;
  readonly input_dtype?: string;
  readonly same_dtype_half_even?: string;
}

interface FedavgSet {
  readonly set: string;
  readonly inputs: readonly { readonly leaf: string; readonly file: string; readonly weight: string }[];
  readonly outcome: 'ok' | 'error';
  readonly error?: string;
  readonly total_weight: string;
  readonly expected: readonly Expected[];
  readonly non_finite?: readonly { readonly leaf: string; readonly array: number; readonly index: number }[];
}

const fixture = (name: string) =>
  readFileSync(fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url)));
const { sets } = JSON.parse(fixture('fedavg.json').toString()) as { sets: FedavgSet[] };

const test = suite('fedavg');

async function inputsOf({ inputs }: FedavgSet, order: readonly number[]) {
  return Promise.all(
    order.map(async (i) => {
      const { leaf, file } = inputs[i]!;
      const weights = await openWeights(memorySource(fixture(file), leaf));
      const { source, layout } = await unpackWeights(weights, { scratch: memoryScratch });
      return { leaf, source, layout, weighting: layout.weighting };
    }),
  );
}

/** The payloads of the output, tensor by tensor. */
async function averageOf(set: FedavgSet, order: readonly number[], options: AggregationOptions = {}) {
  const aggregation = await Aggregation.open(await inputsOf(set, order), options);
  const { tensors, totalWeighting } = aggregation;
  const encoding = await encodeWeights({ format: 'npy-object', weighting: totalWeighting, tensors });
  const sink = memorySink(encoding.byteLength);
  await aggregation.run(sink, encoding);
  await aggregation.close();
  return {
    totalWeighting,
    tensors,
    payloads: encoding.payloads.map(({ offset, byteLength }) =>
      sink.bytes.subarray(offset, offset + byteLength),
    ),
  };
}

const fraction = (text: string) =>
  text
    .split('/')
    .map(Number)
    .reduce((a, b) => a / b);

for (const set of sets) {
  const canonical = set.inputs.map((_, i) => i);

  if (set.outcome === 'error') {
    test(`${set.set}: ${set.error}`, async () => {
      await failsWith(set.error!, () => averageOf(set, canonical));
    });
    continue;
  }

  if (set.non_finite !== undefined) {
    test(`${set.set}: rejected with every place`, async () => {
      const error = await failsWith('non-finite', () => averageOf(set, canonical));
      const { nonFinite } = error as unknown as {
        nonFinite: readonly { leaf: string; tensor: number; index: number }[];
      };
      assert.equal(
        nonFinite.map(({ leaf, tensor, index }) => ({ leaf, array: tensor, index })),
        set.non_finite,
      );
    });
  }

  test(`${set.set}: 0 ulp in canonical and shuffled orders and for all block sizes`, async () => {
    const random = new Random(testSeed());
    const orders = [canonical, ...Array.from({ length: 3 }, () => random.shuffle(canonical))];
    for (const order of orders) {
      for (const elements of [1, 7, 64, 4096, 65536]) {
        const options = { nonFinite: set.non_finite === undefined ? 'reject' : 'propagate' } as const;
        const result = await averageOf(set, order, {
          ...options,
          blockBytes: elements * (set.expected[0]!.dtype === 'float64' ? 8 : 4),
        });
        assert.is(result.totalWeighting, fraction(set.total_weight));
        assert.is(result.tensors.length, set.expected.length);
        for (const [i, expected] of set.expected.entries()) {
          assert.equal(result.tensors[i]!.shape, expected.shape);
          // Integer means come out as integers here, rounded half to even.
          assert.is(result.tensors[i]!.dtype, expected.input_dtype ?? expected.dtype);
          const bits = expected.same_dtype_half_even ?? expected.correctly_rounded;
          sameBytes(result.payloads[i]!, Buffer.from(bits, 'base64'), `${set.set}, tensor ${i}`);
        }
      }
    }
  });
}

test.run();
