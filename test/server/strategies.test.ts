/** Rules through the whole service, with the real jobs: the same bits as the library's on the same files. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeUpdate, readTensors, startJobs, tensorOf, writeWeights } from '../../dist/index.js';
import { keepsState } from '../../src/aggregate/steps.ts';
import type { StrategyRequest } from '../../src/aggregate/strategies/index.ts';
import { openStrategy, STRATEGY_NAMES } from '../../src/aggregate/strategies/index.ts';
import { averageOf } from '../../src/server/domain/averages.ts';
import { startWithModel } from '../../src/server/domain/initial-model.ts';
import { markFetched } from '../../src/server/domain/results.ts';
import { changeRun } from '../../src/server/domain/runs.ts';
import { memorySink, memorySource } from '../../src/tensor/bytes.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { Random } from '../helpers/random.ts';
import { Rig } from './domain/rig.ts';

const test = suite('strategies in the service');
const seed = Number(process.env.CAMBIUM_SEED ?? 7);
const random = new Random(seed);
const jobs = startJobs({ threads: 1 });
const folder = mkdtempSync(join(tmpdir(), 'cambium-strategies-'));
test.before(() => console.log(`seed ${seed}`));
test.after(async () => {
  await jobs.close();
  rmSync(folder, { recursive: true });
});

/** A weight file, in memory. */
async function bytesOf(tensors: readonly Tensor[], weighting: number): Promise<Uint8Array> {
  let sink = memorySink(0);
  await writeWeights(
    (byteLength: number) => {
      sink = memorySink(byteLength);
      return sink;
    },
    { weighting, tensors },
  );
  return sink.bytes;
}

const values = (length: number) => Float32Array.from({ length }, () => random.uniform() - 0.5);

async function weights(): Promise<Uint8Array> {
  return bytesOf([tensorOf(values(5000)), tensorOf(new Int32Array([3, 1]))], random.integer(1, 99));
}

/** A model and a state as far as the rule looks at them: jobs refuse what is of no use. */
function used({ name, parameters }: StrategyRequest, model: string | undefined, state: string) {
  const rule = openStrategy(name, parameters);
  return { model: rule.needsModel ? model : undefined, state: keepsState(rule) ? state : undefined };
}

let count = 0;
/** A new file; with bytes it holds them. */
function file(bytes?: Uint8Array): string {
  const path = join(folder, `${count++}.npy`);
  if (bytes !== undefined) writeFileSync(path, bytes);
  return path;
}

/** How each rule is tried; one that is not here fails its test. */
const CASES: Readonly<Record<string, readonly [parameters: Record<string, number>, rounds: number]>> = {
  mean: [{}, 2],
  median: [{}, 2],
  'weighted-median': [{}, 2],
  'trimmed-mean': [{ trim: 0.2 }, 2],
  krum: [{ byzantine: 1 }, 2],
  'multi-krum': [{ byzantine: 1, select: 3 }, 2],
  'geometric-median': [{}, 2],
  'clipped-mean': [{ norm: 5 }, 3],
  fedavg: [{ learningRate: 0.5 }, 3],
  fedavgm: [{}, 4],
  fedadagrad: [{ learningRate: 0.1 }, 4],
  fedyogi: [{ learningRate: 0.1 }, 4],
  fedadam: [{ learningRate: 0.1 }, 10],
  fednova: [{}, 3],
  buffered: [{}, 3],
};

for (const name of STRATEGY_NAMES) {
  test(`${name}, some rounds, a restart in the middle`, async () => {
    assert.ok(CASES[name], `no case for the rule ${name}`);
    const [parameters, rounds] = CASES[name];
    const rig = await new Rig(jobs).start();
    try {
      const branch = await rig.branch({ aggregation_target: 5, strategy: { name, parameters } });
      const leaves = await rig.leaves(branch, 5);
      await changeRun(rig.domain, branch, 'start');
      const { needsModel = false } = openStrategy(name, parameters);
      let model: string | undefined;
      const state = file();
      for (let round = 1; round <= rounds; round++) {
        const inputs: { path: string; leaf: string }[] = [];
        const perLeaf = new Map<string, number>();
        for (const [i, leaf] of leaves.entries()) {
          const bytes = await weights();
          inputs.push({ path: file(bytes), leaf: leaf.id });
          await rig.upload(leaf, bytes, { localSteps: i + 1 });
          // Nobody has fetched anything: each round makes everybody one round staler.
          perLeaf.set(leaf.id, name === 'fednova' ? i + 1 : round - 1);
        }
        const done = await rig.settled(branch, round);
        assert.is(done.failure, null);
        const output = file();
        const strategy =
          needsModel && model === undefined
            ? { name: 'mean' }
            : { name, parameters, ...(name === 'fednova' || name === 'buffered' ? { perLeaf } : {}) };
        const request = { inputs, output, format: 'npy-object', strategy } as const;
        await jobs.aggregate({ ...request, ...used(strategy, model, state) });
        sameBytes(
          readFileSync(rig.domain.blobs.path(done.aggregation_id!)),
          readFileSync(output),
          `round ${round}`,
        );
        if (needsModel) model = output;
        if (round === rounds >> 1) await rig.restart();
      }
    } finally {
      await rig.end();
    }
  });
}

for (const [name, parameters] of [
  ['mean', {}],
  ['median', {}],
  ['fedadam', { learningRate: 0.1 }],
] as const) {
  test(`${name} of differences in int8 and top-k, a restart in the middle`, async () => {
    const rig = await new Rig(jobs).start();
    try {
      const branch = await rig.branch({ aggregation_target: 4, strategy: { name, parameters } });
      const leaves = await rig.leaves(branch, 4);
      await startWithModel(rig.domain, branch, await rig.spool(await weights()));
      const pathOf = async (round: number) =>
        rig.domain.blobs.path((await rig.settled(branch, round)).aggregation_id!);
      const state = file();
      for (let round = 1; round <= 2; round++) {
        const model = await pathOf(round - 1);
        const global = await readTensors(memorySource(readFileSync(model), 'model'));
        const inputs: { path: string; leaf: string }[] = [];
        for (const [i, leaf] of leaves.entries()) {
          await markFetched(rig.domain, (await rig.round(branch, round - 1)).aggregation_id!, leaf.id);
          const update = await readTensors(memorySource(await weights(), 'update'));
          const form = i % 2 === 0 ? ({ quantise: 'int8-block', block: 64 } as const) : { topK: 0.05 };
          const { bytes } = await encodeUpdate(update, { ...form, differenceTo: global.tensors });
          inputs.push({ path: file(bytes), leaf: leaf.id });
          await rig.upload(leaf, bytes);
        }
        const done = await rig.settled(branch, round);
        assert.is(done.failure, null);
        assert.ok(done.updates.every(({ difference }) => difference));
        const output = file();
        const strategy = { name, parameters };
        await jobs.aggregate({
          ...{ inputs, output, format: 'npy-object', strategy },
          ...{ model, differences: true, state: used(strategy, model, state).state },
        });
        sameBytes(readFileSync(await pathOf(round)), readFileSync(output), `round ${round}`);
        if (round === 1) await rig.restart();
      }
    } finally {
      await rig.end();
    }
  });
}

/** Two tensors of one shape, told apart by nothing but their order or names: `w` and `b` as they are named, and without names. */
async function pairOf(order: 'wb' | 'bw' | 'nameless') {
  const [w, b] = [values(500), values(500)];
  const weighting = random.integer(1, 9);
  const named = [tensorOf(w, [500], 'w'), tensorOf(b, [500], 'b')];
  const plain = await bytesOf([tensorOf(w), tensorOf(b)], weighting);
  if (order === 'nameless') return { sent: plain, plain };
  const sent = await bytesOf(order === 'wb' ? named : named.reverse(), weighting);
  return { sent, plain };
}

for (const [name, parameters] of [
  ['mean', {}],
  ['median', {}],
  ['fedadam', { learningRate: 0.1 }],
] as const) {
  test(`${name} of a model without names and updates that name its tensors in several orders`, async () => {
    const rig = await new Rig(jobs).start();
    try {
      const branch = await rig.branch({ aggregation_target: 4, strategy: { name, parameters } });
      const leaves = await rig.leaves(branch, 4);
      const { plain: initial } = await pairOf('nameless');
      await startWithModel(rig.domain, branch, await rig.spool(initial));
      let model = rig.domain.blobs.path((await rig.round(branch, 0)).aggregation_id!);
      const state = file();
      for (let round = 1; round <= 2; round++) {
        const inputs: { path: string; leaf: string }[] = [];
        const norms = new Map<string, number>();
        for (const [i, order] of (['wb', 'bw', 'nameless', 'bw'] as const).entries()) {
          const { sent, plain } = await pairOf(order);
          const path = file(plain);
          inputs.push({ path, leaf: leaves[i]!.id });
          norms.set(leaves[i]!.id, (await jobs.examine(path, { checkFinite: true, model })).norm!);
          await rig.upload(leaves[i]!, sent);
        }
        const done = await rig.settled(branch, round);
        assert.is(done.failure, null);
        const output = file();
        const strategy = { name, parameters };
        await jobs.aggregate({
          ...{ inputs, output, format: 'npy-object', strategy },
          ...used(strategy, model, state),
        });
        const stored = rig.domain.blobs.path(done.aggregation_id!);
        const read = async (path: string) =>
          (await readTensors(memorySource(readFileSync(path), path))).tensors;
        const [actual, expected] = [await read(stored), await read(output)];
        for (const [t, { data }] of expected.entries()) sameBytes(actual[t]!.data, data, `tensor ${t}`);
        assert.equal(
          actual.map((tensor) => tensor.name),
          name === 'fedadam' ? [null, null] : ['w', 'b'],
        );
        // The norm of an update sums its tensors in its own order: the same to the last bits.
        for (const { leaf_id, norm } of done.updates) {
          const expected = norms.get(leaf_id)!;
          assert.ok(Math.abs(norm! - expected) < 1e-12 * expected, `${norm} ${expected}`);
        }
        model = output;
        if (round === 1) await rig.restart();
      }
    } finally {
      await rig.end();
    }
  });
}

test('a sum for a server above, and the mean of a branch, of updates that name their tensors in several orders', async () => {
  const rig = await new Rig(jobs).start();
  try {
    const branch = await rig.branch({ aggregation_target: 2, upstream: true });
    const leaves = await rig.leaves(branch, 2);
    await startWithModel(rig.domain, branch, await rig.spool((await pairOf('nameless')).plain));
    // Whoever comes first has not the smaller id by nature.
    const [last, first] = leaves[0]!.id < leaves[1]!.id ? [leaves[0]!, leaves[1]!] : [leaves[1]!, leaves[0]!];
    const inputs: { path: string; leaf: string }[] = [];
    for (const [leaf, order] of [
      [first, 'wb'],
      [last, 'bw'],
    ] as const) {
      const { sent, plain } = await pairOf(order);
      inputs.push({ path: file(plain), leaf: leaf.id });
      await rig.upload(leaf, sent);
    }
    const { sum, id } = await rig.settled(branch, 1);
    const output = file();
    await jobs.aggregate({ inputs, output, format: 'npy-object' });
    const { tensors: expected } = await readTensors(memorySource(readFileSync(output), output));
    const merged = file();
    await jobs.merge({ inputs: [{ path: rig.domain.blobs.path(sum!.file_id) }], output: merged, to: 'mean' });
    const average = rig.domain.blobs.path((await averageOf(rig.domain, id, branch)).aggregation_id);
    for (const path of [merged, average]) {
      const { tensors } = await readTensors(memorySource(readFileSync(path), path));
      assert.equal(
        tensors.map(({ name }) => name),
        ['w', 'b'],
      );
      for (const [t, { data }] of expected.entries()) sameBytes(tensors[t]!.data, data, `tensor ${t}`);
    }
  } finally {
    await rig.end();
  }
});

test('ten leaves, three branches, two levels: the flat average, bit for bit', async () => {
  const rig = await new Rig(jobs).start();
  try {
    const tree_id = await rig.tree();
    const root = await rig.branch({ tree_id, aggregation_target: 2 });
    const left = await rig.branch({ tree_id, aggregation_target: 4, parent_id: root });
    const right = await rig.branch({ tree_id, aggregation_target: 6, parent_id: root });
    const leaves = [...(await rig.leaves(left, 4)), ...(await rig.leaves(right, 6))];
    await changeRun(rig.domain, root, 'start');
    const inputs: { path: string; leaf: string }[] = [];
    for (const leaf of leaves) {
      const bytes = await weights();
      inputs.push({ path: file(bytes), leaf: leaf.id });
      await rig.upload(leaf, bytes);
    }
    const done = await rig.settled(root, 1);
    const output = file();
    await jobs.aggregate({ inputs, output, format: 'npy-object' });
    sameBytes(readFileSync(rig.domain.blobs.path(done.aggregation_id!)), readFileSync(output), 'root');
  } finally {
    await rig.end();
  }
});

test.run();
