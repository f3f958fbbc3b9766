/** What a leaf does with whole models in memory: differences to the global model and back, and FedProx's gradient. */
import { type Core, openStrategies } from '../core/core.ts';
import type { StrategyExports } from '../core/exports.ts';
import { proximalInto } from '../core/step.ts';
import { addInto } from '../core/updates.ts';
import { AggregationError } from '../errors.ts';
import { DTYPES, itemSize } from '../tensor/dtypes.ts';
import { elementCount, tensorLabel } from '../tensor/layout.ts';
import { checkTensor, type Tensor } from '../tensor/tensor.ts';
import { matchTensors } from './match.ts';
import { stateDType } from './steps.ts';

/** Bytes of a block. */
const BLOCK = 64 << 10;

/**
 * What training has changed: update − model, rounded once to the dtype. Tensors match by name when all have names, else by
 * position. Integer and bool tensors stay those of the update: a difference has the new values there. NaN and infinity
 * follow IEEE 754, NaN in canonical form.
 *
 * @returns new tensors, in the update's order
 * @throws AggregationError `average-count`, `average-name`, `average-dtype`, `average-shape`; RangeError when bytes do not
 *   fit a shape
 */
export function subtractModel(update: readonly Tensor[], model: readonly Tensor[]): Promise<Tensor[]> {
  return combine([update, model], ['the update', 'the model'], (core, dtype, [a, x], count) => {
    addInto(core, dtype, a!, x!, count, true);
  });
}

/**
 * A model from a difference: difference + model, rounded once; the counterpart of `subtractModel`, with the same errors.
 * Where the difference was rounded the update does not come back bit for bit.
 */
export function addModel(difference: readonly Tensor[], model: readonly Tensor[]): Promise<Tensor[]> {
  return combine([difference, model], ['the difference', 'the model'], (core, dtype, [a, x], count) => {
    addInto(core, dtype, a!, x!, count);
  });
}

/**
 * The gradient of a leaf that trains by FedProx (Li et al., "Federated Optimization in Heterogeneous Networks", 2020): the
 * loss has the term μ/2·‖x − x_global‖² besides, so its gradient has μ·(x − x_global), which keeps leaves with different
 * data near the model that they began with. The server averages as ever. In binary64, rounded once to the dtype.
 *
 *     const gradient = await proximalGradient(ownGradient, weights, globalWeights, 0.01);
 *
 * Tensors match as for `subtractModel`. NaN and infinity follow IEEE 754, NaN in canonical form.
 *
 * @param mu μ, at least 0 and finite
 * @returns new tensors, in the order of `gradient`
 * @throws AggregationError as `subtractModel`, and `aggregate-dtype-unsupported` for integers and bool; RangeError for μ
 */
export async function proximalGradient(
  gradient: readonly Tensor[],
  model: readonly Tensor[],
  global: readonly Tensor[],
  mu: number,
): Promise<Tensor[]> {
  if (!(mu >= 0 && mu < Infinity)) throw new RangeError(`mu is ${mu}, it must be at least 0 and finite`);
  for (const [i, tensor] of gradient.entries()) {
    if (stateDType(tensor.dtype) !== null) continue;
    throw new AggregationError(
      'aggregate-dtype-unsupported',
      `${tensorLabel(tensor, i)} is ${tensor.dtype}, which has no gradient`,
      { tensor: tensor.name ?? i },
    );
  }
  const names = ['the gradient', 'the model', 'the global model'];
  return combine([gradient, model, global], names, (core, dtype, [g, x, origin], count) => {
    proximalInto(core, dtype, mu, g!, x!, origin!, count);
  });
}

/** Changes blocks of the first operand in place, the others at hand. */
type Kernel = (
  core: Core<StrategyExports>,
  dtype: number,
  addresses: readonly number[],
  count: number,
) => void;

async function combine(
  operands: readonly (readonly Tensor[])[],
  names: readonly string[],
  kernel: Kernel,
): Promise<Tensor[]> {
  for (const tensor of operands.flat()) checkTensor(tensor);
  const { sources } = matchTensors(
    operands.map((tensors, i) => ({
      leaf: names[i]!,
      layout: {
        tensors: tensors.map(({ data, ...spec }) => ({
          ...spec,
          order: 'C' as const,
          byteOrder: 'little' as const,
          byteOffset: 0,
          byteLength: data.byteLength,
        })),
      },
    })),
  );
  const core = await openStrategies(operands.length * (BLOCK + 16));
  try {
    const addresses = operands.map(() => core.take(BLOCK));
    return operands[0]!.map(({ name, dtype, shape }, t) => {
      const size = itemSize(dtype);
      const blocks = operands.map((tensors, i) => tensors[sources[i]![t]!]!.data);
      const data = new Uint8Array(elementCount(shape) * size);
      for (let at = 0; at < data.byteLength; at += BLOCK) {
        const byteLength = Math.min(BLOCK, data.byteLength - at);
        for (const [i, bytes] of blocks.entries()) {
          core.bytes(addresses[i]!, byteLength).set(bytes.subarray(at, at + byteLength));
        }
        kernel(core, DTYPES[dtype].code, addresses, byteLength / size);
        data.set(core.bytes(addresses[0]!, byteLength), at);
      }
      return { name, dtype, shape, data };
    });
  } finally {
    core.close();
  }
}
