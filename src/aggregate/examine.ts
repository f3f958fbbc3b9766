/** One look at every element of an update: what is NaN or infinite, and how far the update lies from the global model. */

import { CHUNK } from '../../assembly/abi.ts';
import { type Core, openStrategies } from '../core/core.ts';
import { squaredDifferencesInto, squaredNormsInto, supportsDistances } from '../core/distances.ts';
import { swapBytes } from '../core/elements.ts';
import type { StrategyExports } from '../core/exports.ts';
import { AggregationError, type NonFiniteElement } from '../errors.ts';
import type { Decoder } from '../formats/decode.ts';
import type { TensorSpec } from '../formats/encoding.ts';
import { type ByteSource, readAll, type ScratchFactory } from '../tensor/bytes.ts';
import { DTYPES, itemSize, numberSize } from '../tensor/dtypes.ts';
import type { Layout, TensorLayout } from '../tensor/layout.ts';
import { matchTensors } from './match.ts';
import { locateNonFinite } from './non-finite.ts';
import { needsReorder, reorderInto } from './reorder.ts';

/** Bytes read at a time: whole chunks of every element. */
const BLOCK = 256 << 10;

/** As many as a report of an aggregation names. */
const REPORTED = 8;

/** A weight file, every tensor of it contiguous, or encoded and indexed (`prepareWeights`). */
interface Elements {
  readonly source: ByteSource;
  readonly layout: Pick<Layout, 'tensors'>;
}

export interface ExamineOptions {
  /** Who the elements belong to in the report. */
  readonly leaf: string;
  /** The global model. One with other tensors has no part in it. */
  readonly model?: Elements | undefined;
  /** What the tensors of both are paired with; with each other unless given. */
  readonly tensors?: readonly TensorSpec[] | undefined;
  /** Room to put Fortran order into C order. */
  readonly scratch: ScratchFactory;
  /** Looked at between two blocks. */
  readonly signal?: Pick<AbortSignal, 'throwIfAborted'> | undefined;
}

export interface ElementReport {
  /** The first eight NaN or infinite elements by tensor and index in C order; reading ends there. */
  readonly nonFinite: readonly NonFiniteElement[];
  /**
   * L2 norm of the difference to the model, or of the elements where there is none, in binary64: the root of the sum that
   * `clipped-mean` takes, bit for bit. Null where it is not finite, or a tensor has no numbers.
   */
  readonly norm: number | null;
  /** Whether it is that of a difference. */
  readonly isDifference: boolean;
}

/**
 * Reads every element of a weight file once, and every one of the model, in constant memory. Encoded elements are decoded as
 * they are read.
 *
 * @throws FileError `file-changed` when a source ends too early; what the scratch room throws
 */
export async function examineElements(
  { source, layout }: Elements,
  options: ExamineOptions,
): Promise<ElementReport> {
  const isEncoded = layout.tensors.some(({ parts }) => parts !== undefined);
  const decoding = isEncoded ? (await import('../formats/decode.ts')).Decoder : undefined;
  const core = await openStrategies(ARENA_BYTES + (decoding?.arenaBytes(BLOCK) ?? 0));
  try {
    const look = new Look(core, options, decoding && new decoding(core, BLOCK));
    const model = options.model && inOrderOf(layout, options.model, options.tensors);
    for (const [position, tensor] of layout.tensors.entries()) {
      await look.tensor(source, tensor, position, model && [model.source, model.tensors[position]!]);
      if (look.found.length >= REPORTED) break;
    }
    const norm = Math.sqrt(look.total);
    return {
      nonFinite: look.found,
      norm: Number.isFinite(norm) ? norm : null,
      isDifference: model !== undefined,
    };
  } finally {
    core.close();
  }
}

/** Sums of the chunks of a block; elements have a byte at least. */
const SUMS_BYTES = 8 * (BLOCK / CHUNK);

/** Bytes of the arena that `Look` takes. */
const ARENA_BYTES = 2 * BLOCK + SUMS_BYTES + 64;

/** The model's tensors in the order of the update's; undefined where they are others, or lie otherwise than we write them. */
function inOrderOf(
  layout: Elements['layout'],
  model: Elements,
  expected: readonly TensorSpec[] | undefined,
): { readonly source: ByteSource; readonly tensors: readonly TensorLayout[] } | undefined {
  try {
    const inputs = [
      { leaf: 'the update', layout },
      { leaf: 'the model', layout: model.layout },
    ];
    const [ours, its] = matchTensors(inputs, expected).sources as [readonly number[], readonly number[]];
    const tensors: TensorLayout[] = [];
    for (const [i, position] of ours.entries()) tensors[position] = model.layout.tensors[its[i]!]!;
    const isPlain = tensors.every((tensor) => !needsReorder(tensor) && tensor.byteOrder === 'little');
    return isPlain ? { source: model.source, tensors } : undefined;
  } catch (error) {
    if (error instanceof AggregationError) return undefined;
    throw error;
  }
}

class Look {
  readonly found: NonFiniteElement[] = [];
  /** The sum of squares so far: chunk by chunk in the order of elements, then tensor by tensor. */
  total = 0;

  readonly #core: Core<StrategyExports>;
  readonly #options: ExamineOptions;
  readonly #decoder: Decoder | undefined;
  readonly #block: number;
  readonly #modelBlock: number;
  /** Address of the block's address, as kernels for several inputs want it. */
  readonly #table: number;
  readonly #sums: number;

  constructor(core: Core<StrategyExports>, options: ExamineOptions, decoder: Decoder | undefined) {
    this.#core = core;
    this.#options = options;
    this.#decoder = decoder;
    this.#block = core.take(BLOCK);
    this.#modelBlock = core.take(BLOCK);
    this.#table = core.take(4);
    this.#sums = core.take(SUMS_BYTES);
    core.view(this.#table, 4).setUint32(0, this.#block, true);
  }

  async tensor(
    source: ByteSource,
    tensor: TensorLayout,
    position: number,
    model: readonly [ByteSource, TensorLayout] | undefined,
  ): Promise<void> {
    if (!supportsDistances(DTYPES[tensor.dtype].code)) {
      this.total = Number.NaN;
      return;
    }
    if (!needsReorder(tensor)) return this.#read(source, tensor.byteOffset ?? 0, tensor, position, model);
    const scratch = await this.#options.scratch(tensor.byteLength);
    try {
      await reorderInto(source, tensor, scratch);
      await this.#read(scratch, 0, tensor, position, model);
    } finally {
      await scratch.close();
    }
  }

  async #read(
    source: ByteSource,
    offset: number,
    { dtype, byteLength, byteOrder, parts }: TensorLayout,
    position: number,
    model: readonly [ByteSource, TensorLayout] | undefined,
  ): Promise<void> {
    const core = this.#core;
    const size = itemSize(dtype);
    let ofTensor = 0;
    for (let at = 0; at < byteLength; at += BLOCK) {
      this.#options.signal?.throwIfAborted();
      const bytes = core.bytes(this.#block, Math.min(BLOCK, byteLength - at));
      const count = bytes.byteLength / size;
      if (parts === undefined) await readAll(source, offset + at, bytes);
      else {
        const piece = { parts, byteOffset: 0, itemSize: size, start: at / size, count, out: this.#block };
        await this.#decoder!.decode(source, [piece]); // there is one where something is encoded
      }
      if (byteOrder === 'big') {
        const number = numberSize(dtype);
        swapBytes(core, this.#block, bytes.byteLength / number, number);
      }
      if (model !== undefined) {
        const [file, { byteOffset }] = model;
        await readAll(file, (byteOffset ?? 0) + at, core.bytes(this.#modelBlock, bytes.byteLength));
      }
      const sum = this.#squares(DTYPES[dtype].code, count, model !== undefined, ofTensor);
      // A square may overflow, and a model may hold what an update may not: this only says where it is worth looking.
      if (!Number.isFinite(sum)) this.#find(DTYPES[dtype].code, count, position, at / size);
      ofTensor = sum;
      if (this.found.length >= REPORTED) return;
    }
    this.total += ofTensor;
  }

  /** Adds the sums of the block's chunks to `before`. */
  #squares(dtype: number, count: number, hasModel: boolean, before: number): number {
    const core = this.#core;
    if (hasModel) {
      squaredDifferencesInto(core, dtype, this.#table, 1, count, this.#modelBlock, this.#sums);
    } else {
      squaredNormsInto(core, dtype, this.#table, 1, count, this.#sums);
    }
    const chunks = Math.ceil(count / CHUNK);
    const view = core.view(this.#sums, 8 * chunks);
    let sum = before;
    for (let i = 0; i < chunks; i++) sum += view.getFloat64(8 * i, true);
    return sum;
  }

  #find(dtype: number, count: number, tensor: number, start: number): void {
    const elements = { leaf: this.#options.leaf, address: this.#block };
    const most = REPORTED - this.found.length;
    this.found.push(...locateNonFinite(this.#core, dtype, [elements], { tensor, start, count }, most));
  }
}
