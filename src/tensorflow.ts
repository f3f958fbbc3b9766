/**
 * The door for models of TensorFlow.js, `cambium/tensorflow`: their weights as updates, and aggregations as their weights.
 * It knows the few members that it needs of a model, so any version and any build of the library will do.
 */
import { AggregationError, UnavailableError } from './errors.ts';
import { arraysOf, updateFromArrays } from './tensor/arrays.ts';
import type { ModelUpdate } from './tensor/tensor.ts';

/** What is needed of a tensor of TensorFlow.js. */
export interface TensorFlowTensor {
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly name?: string | undefined;
  data(): Promise<ArrayLike<number>>;
}

/** What is needed of a layers model. */
export interface TensorFlowModel<T extends TensorFlowTensor = TensorFlowTensor> {
  getWeights(): T[];
  setWeights(weights: T[]): void;
}

/** What is needed of the library: `import * as tf from '@tensorflow/tfjs-core'`. */
export interface TensorFlow {
  tensor(
    values: Float32Array | Int32Array | Uint8Array,
    shape: number[],
    dtype: 'float32' | 'int32' | 'bool',
  ): TensorFlowTensor;
  /** Takes the tensors that `tensor` made. */
  dispose(tensors: never): void;
}

/**
 * The weights of a model as an update, in the order of `model.getWeights()`. Waits for the device, and copies.
 *
 * @param weighting how much it counts, see `weightings`
 * @throws AggregationError `aggregate-dtype-unsupported` for a tensor that is neither float32, int32 nor bool
 */
export async function updateFromTensorFlow(
  model: Pick<TensorFlowModel, 'getWeights'>,
  weighting: number | null,
): Promise<ModelUpdate> {
  const weights = model.getWeights();
  const arrays = await Promise.all(
    weights.map(async (tensor, i) => {
      const { shape, dtype } = tensor;
      const data = await tensor.data();
      if (data instanceof Float32Array || data instanceof Int32Array) return { data, shape };
      if (dtype === 'bool') return { name: null, dtype: 'bool' as const, shape, data: Uint8Array.from(data) };
      throw new AggregationError('aggregate-dtype-unsupported', `weight ${i} is ${dtype}`, { tensor: i });
    }),
  );
  return updateFromArrays(arrays, weighting);
}

/**
 * Gives a model the weights of an aggregation, whose tensors must come in the order of `model.getWeights()` and have the
 * same shapes. float16, bfloat16 and float64 become float32, small integers int32. What was made on the way is disposed of.
 *
 * @param tf the library; unless given, `@tensorflow/tfjs-core` is imported, where a page or a program has it
 * @throws AggregationError `layout-count`, `layout-shape`, `aggregate-dtype-unsupported`; UnavailableError
 *   `unavailable-package`. The model is as it was then
 */
export async function setTensorFlowWeights<T extends TensorFlowTensor>(
  model: TensorFlowModel<T>,
  aggregation: Pick<ModelUpdate, 'tensors'>,
  tf?: TensorFlow,
): Promise<void> {
  const weights = model.getWeights();
  const arrays = arraysOf(aggregation);
  if (arrays.length !== weights.length) {
    throw new AggregationError(
      'layout-count',
      `the aggregation has ${arrays.length} tensors, the model has ${weights.length}`,
    );
  }
  for (const [i, { shape }] of arrays.entries()) {
    const wanted = weights[i]?.shape ?? [];
    if (shape.length !== wanted.length || shape.some((dimension, axis) => dimension !== wanted[axis])) {
      throw new AggregationError(
        'layout-shape',
        `tensor ${i} has the shape (${shape.join(', ')}), in the model it has (${wanted.join(', ')})`,
        { tensor: i },
      );
    }
  }
  const { tensor, dispose } = tf ?? (await loadTensorFlow());
  const made: T[] = [];
  try {
    for (const [i, { data, shape }] of arrays.entries()) {
      const dtype =
        weights[i]?.dtype === 'bool' ? 'bool' : /float/.test(weights[i]?.dtype ?? '') ? 'float32' : 'int32';
      made.push(tensor(valuesFor(dtype, data, i), [...shape], dtype) as T); // of the library's own making
    }
    model.setWeights(made);
  } finally {
    dispose(made as never); // of the library's own making
  }
}

function valuesFor(
  dtype: 'float32' | 'int32' | 'bool',
  data: ArrayBufferView,
  tensor: number,
): Float32Array | Int32Array | Uint8Array {
  if (data instanceof BigInt64Array || data instanceof BigUint64Array || data instanceof Uint32Array) {
    throw new AggregationError(
      'aggregate-dtype-unsupported',
      `tensor ${tensor} has elements that ${dtype} of TensorFlow.js does not hold`,
      { tensor },
    );
  }
  const values = data as
    | Float32Array
    | Float64Array
    | Int8Array
    | Uint8Array
    | Int16Array
    | Uint16Array
    | Int32Array;
  if (dtype === 'float32') return values instanceof Float32Array ? values : Float32Array.from(values);
  if (dtype === 'bool') return Uint8Array.from(values);
  return values instanceof Int32Array ? values : Int32Array.from(values);
}

async function loadTensorFlow(): Promise<TensorFlow> {
  try {
    return await import('@tensorflow/tfjs-core');
  } catch (cause) {
    throw new UnavailableError(
      'unavailable-package',
      'models of TensorFlow.js need its library: npm install @tensorflow/tfjs-core, or give it as the last argument',
      { cause },
    );
  }
}
