/**
 * A small network that reads handwritten digits: 784 pixels, one dense layer of 64 with ReLU, ten outputs with softmax;
 * 50,890 parameters. Trained by plain stochastic gradient descent, which keeps no state between rounds: an average of
 * weights is then all that leaves need to agree on. TensorFlow.js computes on its WASM backend, one thread per process.
 */
import { dirname, join } from 'node:path';
import type * as Wasm from '@tensorflow/tfjs-backend-wasm';
import type * as Core from '@tensorflow/tfjs-core';
import type * as Layers from '@tensorflow/tfjs-layers';
import { CLASSES, PIXELS, type Samples } from './digits.ts';
import { findPackage } from './packages.ts';
import type { Random } from './random.ts';

const HIDDEN = 64;
const BATCH = 32;
const LEARNING_RATE = 0.1;

/** One array of the model, in the order of its layers: kernel and bias of each. */
export interface WeightArray {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** Samples as the network takes them, converted once. */
export interface Dataset {
  readonly size: number;
  /** `PIXELS` per sample, in [0, 1]. */
  readonly pixels: Float32Array;
  readonly labels: Uint8Array;
}

export function datasetOf({ images, labels }: Samples): Dataset {
  const pixels = new Float32Array(images.length);
  // A loop: the mapping of `Float32Array.from` takes ten times as long.
  for (let i = 0; i < images.length; i++) pixels[i] = images[i]! / 255;
  return { size: labels.length, pixels, labels };
}

/** Loads TensorFlow.js. Throws UnavailableError `unavailable-training` when it is not installed. */
export async function loadTraining(): Promise<Training> {
  const core = load<typeof Core>('@tensorflow/tfjs-core');
  const layers = load<typeof Layers>('@tensorflow/tfjs-layers');
  const wasm = load<typeof Wasm>('@tensorflow/tfjs-backend-wasm');
  // The leaves are processes already; threads inside each would only fight over the same processors.
  core.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false);
  const main = findPackage('@tensorflow/tfjs-backend-wasm').resolve('@tensorflow/tfjs-backend-wasm');
  wasm.setWasmPaths(join(dirname(main), '/'));
  await core.setBackend('wasm');
  return new Training(core, layers);
}

export class Training {
  readonly #core: typeof Core;
  readonly #layers: typeof Layers;

  constructor(core: typeof Core, layers: typeof Layers) {
    this.#core = core;
    this.#layers = layers;
  }

  /** A fresh model; the same seed gives the same weights. */
  createModel(seed: number): Model {
    const { dense } = this.#layers.layers;
    // From 1 on: TensorFlow.js takes 0 for "no seed".
    const initial = (i: number) => this.#layers.initializers.glorotUniform({ seed: 2 * seed + i + 1 });
    const network = this.#layers.sequential({
      layers: [
        dense({ units: HIDDEN, activation: 'relu', inputShape: [PIXELS], kernelInitializer: initial(0) }),
        dense({ units: CLASSES, activation: 'softmax', kernelInitializer: initial(1) }),
      ],
    });
    network.compile({ optimizer: this.#core.train.sgd(LEARNING_RATE), loss: 'categoricalCrossentropy' });
    return new Model(this.#core, network);
  }
}

export class Model {
  readonly #core: typeof Core;
  readonly #network: Layers.Sequential;

  constructor(core: typeof Core, network: Layers.Sequential) {
    this.#core = core;
    this.#network = network;
  }

  /** Copies the weights out. */
  weights(): WeightArray[] {
    return this.#network
      .getWeights()
      .map((tensor) => ({ shape: tensor.shape, values: tensor.dataSync<'float32'>().slice() }));
  }

  /** Takes over weights of a model like this one. Throws an Error of TensorFlow.js when shapes differ. */
  setWeights(weights: readonly WeightArray[]): void {
    this.#core.tidy(() => {
      this.#network.setWeights(
        weights.map(({ shape, values }) => this.#core.tensor(values, [...shape], 'float32')),
      );
    });
  }

  /** Goes through the data once in an order drawn from `random`; answers the mean loss of the batches. */
  async trainEpoch(data: Dataset, random: Random): Promise<number> {
    const order = random.shuffle(Uint32Array.from({ length: data.size }, (_, i) => i));
    let total = 0;
    let batches = 0;
    for (let from = 0; from < order.length; from += BATCH) {
      const [pixels, targets] = this.#batch(data, order.subarray(from, from + BATCH));
      total += Number(await this.#network.trainOnBatch(pixels, targets));
      batches++;
      this.#core.dispose([pixels, targets]);
    }
    return total / batches;
  }

  /** The part of the samples that the model reads correctly, in [0, 1]. */
  accuracy(data: Dataset): number {
    const guesses = this.#core.tidy(() => {
      const input = this.#core.tensor2d(data.pixels, [data.size, PIXELS]);
      const output = this.#network.predict(input, { batchSize: data.size }) as Core.Tensor2D;
      return this.#core.argMax(output, 1).dataSync<'int32'>();
    });
    let right = 0;
    for (let i = 0; i < data.size; i++) if (guesses[i] === data.labels[i]) right++;
    return right / data.size;
  }

  #batch(data: Dataset, indices: Uint32Array): [Core.Tensor2D, Core.Tensor2D] {
    const pixels = new Float32Array(indices.length * PIXELS);
    const targets = new Float32Array(indices.length * CLASSES);
    indices.forEach((index, i) => {
      pixels.set(data.pixels.subarray(index * PIXELS, (index + 1) * PIXELS), i * PIXELS);
      targets[i * CLASSES + data.labels[index]!] = 1;
    });
    return [
      this.#core.tensor2d(pixels, [indices.length, PIXELS]),
      this.#core.tensor2d(targets, [indices.length, CLASSES]),
    ];
  }
}

function load<T>(name: string): T {
  return findPackage(name)(name);
}
