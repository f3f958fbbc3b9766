// What the property tests draw: updates of every kind that a format can hold. Elements come from a seed, so that
// shrinking works on layouts and not on thousands of bytes.
import fc from 'fast-check';
import { DTYPES, type DType, itemSize } from '../../src/tensor/dtypes.ts';
import { elementCount } from '../../src/tensor/layout.ts';
import type { ModelUpdate, Tensor } from '../../src/tensor/tensor.ts';
import { Random } from './random.ts';

const MAX_ELEMENTS = 3_000;

/** With how many inputs a property is tried: with all of them under CAMBIUM_LONG, else with the first third. */
export const runs = (all: number): number => (process.env.CAMBIUM_LONG ? all : Math.ceil(all / 3));

/** Random bits; a bool is 0 or 1. */
export function elements(dtype: DType, shape: readonly number[], seed: number): Uint8Array {
  const random = new Random(seed);
  const mask = dtype === 'bool' ? 1 : 255;
  return Uint8Array.from({ length: elementCount(shape) * itemSize(dtype) }, () => random.bits() & mask);
}

/** 0-d, empty, one element, wide and deep ones. */
export const shapes: fc.Arbitrary<number[]> = fc
  .oneof(
    { weight: 6, arbitrary: fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 5 }) },
    { weight: 2, arbitrary: fc.tuple(fc.constantFrom(0, 1, 255, 256, 257, 1_000, 2_999)) },
    { weight: 1, arbitrary: fc.array(fc.constantFrom(0, 1, 1, 1, 2), { minLength: 6, maxLength: 64 }) },
  )
  .filter((shape) => elementCount(shape) <= MAX_ELEMENTS);

/** Any text that UTF-8 can hold. */
const names = fc.oneof(
  fc.stringMatching(/^[a-z_]{1,8}\.[0-9]{1,2}\.(weight|bias)$/),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom(
    '',
    '<',
    '|',
    'b',
    '__proto__',
    'constructor',
    'weighting',
    '\u0000',
    '\ufeff',
    'x'.repeat(1_024),
  ),
);

interface UpdateOptions {
  readonly dtypes?: readonly DType[];
  /** How many tensors at most, 8 unless given. */
  readonly maxTensors?: number;
  /** Every tensor has a name ('all'), none has, or each as it comes ('some', as unless given). */
  readonly named?: 'all' | 'none' | 'some';
  readonly names?: fc.Arbitrary<string>;
}

/** Tensors, no two of one name. */
export function tensorLists(options: UpdateOptions = {}): fc.Arbitrary<Tensor[]> {
  const { named = 'some', dtypes = Object.keys(DTYPES) as DType[] } = options;
  const name = options.names ?? names;
  const tensor = fc
    .record({
      name: named === 'none' ? fc.constant(null) : named === 'all' ? name : fc.option(name),
      dtype: fc.constantFrom(...dtypes),
      shape: shapes,
      seed: fc.nat(),
    })
    .map(({ seed, ...rest }) => ({ ...rest, data: elements(rest.dtype, rest.shape, seed) }));
  return fc.uniqueArray(tensor, {
    maxLength: options.maxTensors ?? 8,
    comparator: (a, b) => a.name !== null && a.name === b.name,
  });
}

/** Weightings of every width that pickles know, and the way they are stored. */
const weightings: fc.Arbitrary<{ weighting: number; weightingType: 'int' | 'float' }> = fc.oneof(
  fc
    .oneof(
      fc.constantFrom(0, 1, 255, 256, 65_535, 65_536, 2 ** 31 - 1, 2 ** 31, 2 ** 53 - 1),
      fc.constantFrom(-1, -128, -129, -(2 ** 31), -(2 ** 31) - 1, -(2 ** 53) + 1),
      fc.maxSafeInteger(),
    )
    .map((weighting) => ({ weighting, weightingType: 'int' as const })),
  fc.double().map((weighting) => ({ weighting, weightingType: 'float' as const })),
);

/** An update with the way its weighting is stored. */
export type StoredUpdate = ModelUpdate & { readonly weightingType: 'int' | 'float' };

export function updates(options: UpdateOptions = {}): fc.Arbitrary<StoredUpdate> {
  return fc.record({ counted: weightings, tensors: tensorLists(options) }).map(({ counted, tensors }) => ({
    ...counted,
    tensors,
  }));
}
