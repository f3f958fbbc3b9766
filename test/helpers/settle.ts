// Rules that look at whole models, carried out in memory: passes on one core, one tensor after the other.
import { CHUNK } from '../../assembly/abi.ts';
import { measureWidth } from '../../src/aggregate/kernels.ts';
import { measureArenaBytes, openMeasure } from '../../src/aggregate/measures.ts';
import type { MeasureSpec, Settled, Strategy } from '../../src/aggregate/strategies/strategy.ts';
import { openStrategies } from '../../src/core/core.ts';
import { meanArenaBytes, meanInto, planMean } from '../../src/core/mean.ts';
import { DTYPES } from '../../src/tensor/dtypes.ts';

type Numbers = Float32Array | Float64Array | Int32Array;

/** The tensors of one input. */
export type Model = readonly Numbers[];

const codeOf = (tensor: Numbers) =>
  tensor instanceof Float32Array
    ? DTYPES.float32.code
    : tensor instanceof Float64Array
      ? DTYPES.float64.code
      : DTYPES.int32.code;

interface Arena {
  take(byteLength: number): number;
  bytes(address: number, byteLength: number): Uint8Array;
  view(address: number, byteLength: number): DataView;
}

/** Copies a tensor of each input into the arena; the address of their table. */
function place(core: Arena, tensors: readonly Numbers[]): number {
  const table = core.take(4 * tensors.length);
  for (const [j, tensor] of tensors.entries()) {
    const address = core.take(tensor.byteLength);
    core
      .bytes(address, tensor.byteLength)
      .set(new Uint8Array(tensor.buffer, tensor.byteOffset, tensor.byteLength));
    core.view(table + 4 * j, 4).setUint32(0, address, true);
  }
  return table;
}

const roomFor = (models: readonly Model[]) =>
  models.flat().reduce((sum, tensor) => sum + tensor.byteLength + 32, 64);

/** The sums of a pass: chunks in their order for each tensor, then tensors in theirs. */
async function measurePass(
  spec: MeasureSpec,
  inputs: readonly Model[],
  model: Model | undefined,
): Promise<Float64Array> {
  const counted = inputs.filter((_, i) => spec.weightings[i] !== 0);
  const k = counted.length;
  const width = measureWidth(spec, k);
  const models = model === undefined ? counted : [...counted, model];
  const largest = Math.max(...models[0]!.map((tensor) => tensor.length));
  const core = await openStrategies(
    roomFor(models) + measureArenaBytes(spec, k) + 8 * width * Math.ceil(largest / CHUNK) + 64,
  );
  const { measure } = openMeasure(
    spec,
    core,
    spec.weightings.filter((weighting) => weighting !== 0),
  );
  const totals = new Float64Array(width);
  for (const [t, { length }] of models[0]!.entries()) {
    core.scope(() => {
      const tensors = models.map((tensorsOf) => tensorsOf[t]!);
      const table = place(core, tensors);
      const at = model === undefined ? 0 : core.view(table + 4 * k, 4).getUint32(0, true);
      const chunks = Math.ceil(length / CHUNK);
      const out = core.take(8 * width * chunks);
      measure(codeOf(tensors[0]!), table, length, at, out);
      const sums = core.view(out, 8 * width * chunks);
      for (let i = 0; i < width; i++) {
        let sum = 0;
        for (let c = 0; c < chunks; c++) sum += sums.getFloat64(8 * (c * width + i), true);
        totals[i]! += sum;
      }
    });
  }
  core.close();
  return totals;
}

/** What a rule decides about inputs in canonical order, with the passes that it asked for. */
export async function settle(
  strategy: Strategy,
  inputs: readonly Model[],
  weightings: readonly number[],
  model?: Model,
): Promise<Settled & { readonly passes: readonly MeasureSpec[] }> {
  const passes: MeasureSpec[] = [];
  const leaves = inputs.map((_, i) => `leaf-${i}`);
  const steps = strategy.settle!({ leaves, weightings, tensors: [] });
  let step = steps.next();
  while (step.done !== true) {
    passes.push(step.value);
    step = steps.next(await measurePass(step.value, inputs, model));
  }
  return { ...step.value, passes };
}

/** The exact mean of inputs under weightings, tensor by tensor; NaN and infinity propagate. */
export async function meanOf(inputs: readonly Model[], weightings: readonly number[]): Promise<Numbers[]> {
  const counted = inputs.filter((_, i) => weightings[i] !== 0);
  const core = await openStrategies(roomFor([...counted, counted[0]!]) + meanArenaBytes(counted.length) + 64);
  const plan = planMean(
    core,
    weightings.filter((weighting) => weighting !== 0),
  );
  const result = counted[0]!.map((first, t) =>
    core.scope(() => {
      const tensors = counted.map((model) => model[t]!);
      const table = place(core, tensors);
      const out = core.take(first.byteLength);
      meanInto(core, plan, codeOf(first), table, first.length, out, true);
      const mean = first.slice();
      new Uint8Array(mean.buffer).set(core.bytes(out, first.byteLength));
      return mean;
    }),
  );
  core.close();
  return result;
}
