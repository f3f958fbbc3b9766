import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeWeights } from '../../src/formats/write.ts';
import { memorySink } from '../../src/tensor/bytes.ts';
import { type Tensor, tensorOf } from '../../src/tensor/tensor.ts';
import { Random } from '../helpers/random.ts';

/** One aggregation that every host carries out. */
export interface Case {
  /** Column of the table. */
  readonly set: string;
  readonly name: string;
  /** Weight files, relative to the folder of the case file; also the ids of their leaves. */
  readonly files: readonly string[];
  readonly strategy?: { readonly name: string; readonly parameters?: Readonly<Record<string, number>> };
}

/** What a host gave, by set and case: SHA-256 of the output, or the code of the error. A set may be missing as a whole. */
export type Results = Readonly<Record<string, Readonly<Record<string, string>>>>;

export interface Row {
  readonly host: string;
  readonly results: Results;
}

/** What a host gave for each of the cases, in their order. */
export function collect(cases: readonly Case[], digests: readonly string[]): Results {
  const results: Record<string, Record<string, string>> = {};
  for (const [i, { set, name }] of cases.entries()) results[set] = { ...results[set], [name]: digests[i]! };
  return results;
}

/** Where inputs and cases stand. */
export const folder = fileURLToPath(new URL('../../build/hosts/', import.meta.url));
const corpus = '../../test/fixtures/';

/** Rules of the second module, with fractions and ties of their own. */
const RULES: readonly NonNullable<Case['strategy']>[] = [
  { name: 'median' },
  { name: 'weighted-median' },
  { name: 'trimmed-mean', parameters: { trim: 0.2 } },
  { name: 'krum', parameters: { byzantine: 2 } },
  { name: 'multi-krum', parameters: { byzantine: 2, select: 3 } },
  { name: 'geometric-median' },
];

/** Writes the inputs and `cases.json` to build/hosts/. The same bytes every time. */
export async function writeCases(): Promise<readonly Case[]> {
  const { sets } = JSON.parse(readFileSync(join(folder, corpus, 'fedavg.json'), 'utf8')) as {
    readonly sets: readonly { readonly set: string; readonly inputs: readonly { readonly file: string }[] }[];
  };
  mkdirSync(folder, { recursive: true });
  const random = new Random(20_261_125);
  const gauss = (count: number, scale = 1) =>
    Float32Array.from({ length: count }, () => scale * random.gauss());

  const model = gauss(600_000, 0.05);
  const near = await writeInputs('float32', 10, () => ({
    weighting: random.integer(100, 5000),
    tensors: [
      tensorOf(
        model.map((x) => x + 0.001 * random.gauss()),
        [600, 1000],
      ),
      tensorOf(gauss(1001)),
    ],
  }));
  const wide = await writeInputs('float64', 7, () => ({
    weighting: random.uniform() + 0.01,
    tensors: [
      tensorOf(Float64Array.from({ length: 60_001 }, () => random.gauss() * 2 ** random.integer(-40, 40))),
    ],
  }));
  const mixed = await writeInputs('mixed', 5, () => ({
    weighting: random.integer(1, 50),
    tensors: [
      { name: null, dtype: 'float16', shape: [5000], data: halves(random, 5000) } satisfies Tensor,
      tensorOf(Int8Array.from({ length: 5000 }, () => random.integer(-128, 127))),
      tensorOf(BigInt64Array.from({ length: 5000 }, () => BigInt(random.bits()) ** 2n / 3n - 2n ** 61n)),
      tensorOf(Uint16Array.from({ length: 5000 }, () => random.integer(0, 65_535))),
    ],
  }));
  const cases: Case[] = [
    // The C program reads no archives: what every host has in common are sets of .npy files.
    ...sets
      .filter(({ inputs }) => inputs.every(({ file }) => file.endsWith('.npy')))
      .map(({ set, inputs }) => ({
        set: 'corpus',
        name: set,
        files: inputs.map(({ file }) => corpus + file),
      })),
    { set: 'float32', name: 'near a common model', files: near },
    { set: 'float64', name: 'heavy tails, fractional weightings', files: wide },
    { set: 'mixed', name: 'float16 and integers', files: mixed },
    ...RULES.map((strategy) => ({ set: 'rules', name: strategy.name, files: near, strategy })),
  ];
  writeFileSync(join(folder, 'cases.json'), JSON.stringify(cases));
  return cases;
}

/** Finite numbers of any size. */
function halves(random: Random, count: number): Uint8Array {
  const bits = Uint16Array.from(
    { length: count },
    () => random.integer(0, 0x7bff) | (random.bits() & 0x8000),
  );
  return new Uint8Array(bits.buffer);
}

async function writeInputs(
  name: string,
  count: number,
  make: () => { readonly weighting: number; readonly tensors: readonly Tensor[] },
): Promise<string[]> {
  const files: string[] = [];
  for (let j = 0; j < count; j++) {
    let sink = memorySink(0);
    await writeWeights((byteLength) => {
      sink = memorySink(byteLength);
      return sink;
    }, make());
    files.push(`${name}-${j}.npy`);
    writeFileSync(join(folder, `${name}-${j}.npy`), sink.bytes);
  }
  return files;
}
