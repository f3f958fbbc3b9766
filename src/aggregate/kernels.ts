/** Kernels over blocks in the arena of one core: what stages ask of them, and those that both modules have. */
import type { Core } from '../core/core.ts';
import type { FoldExports } from '../core/exports.ts';
import { meanArenaBytes, meanInto, planMean } from '../core/mean.ts';
import { dtypeOfCode, itemSize } from '../tensor/dtypes.ts';
import type { CombineSpec, MeasureSpec, StepSpec } from './strategies/strategy.ts';

/** What a stage needs kernels for. */
export type Needs =
  | {
      readonly kind: 'fold';
      readonly combine: CombineSpec;
      readonly step: { readonly spec: StepSpec; readonly rate: number } | null;
    }
  | { readonly kind: 'measure'; readonly measure: MeasureSpec }
  | { readonly kind: 'scan' };

/** Makes one element out of K elements, prepared for the weightings of one aggregation. */
export interface Combine {
  /**
   * Combines `count` elements of each input.
   *
   * @param dtype code of the element type
   * @param table address of K addresses (uint32) of little-endian elements, in the order of the weightings
   * @param out address of the result, which overlaps no input
   * @returns false when NaN or infinity was met and `nonFinite` is `reject`: the result is undefined then
   */
  fold(dtype: number, table: number, count: number, out: number, nonFinite: 'reject' | 'propagate'): boolean;
}

/** Measures chunks of inputs: the sums of what the pass asks for. */
export interface Measure {
  /** Sums of a chunk. */
  readonly width: number;
  /**
   * @param dtype code of the element type
   * @param table address of K addresses (uint32) of little-endian elements
   * @param count elements, at most a chunk
   * @param model address of the global model's elements, 0 where there is none
   * @param out address of `width` binary64 numbers
   */
  measure(dtype: number, table: number, count: number, model: number, out: number): void;
}

/** Takes steps of blocks. */
export interface Step {
  /**
   * @param dtype code of the element type
   * @param average address of what was combined; becomes the new model
   * @param model address of the global model's elements
   * @param slots addresses of the state's elements, in the order of `stateSlots`; they become those of the next round
   * @returns false when a result is NaN or infinite
   */
  take(dtype: number, average: number, model: number, slots: readonly number[], count: number): boolean;
}

/** The kernels of a stage in the arena of a core; null what the stage does not do. */
interface OpenedKernels {
  readonly combine: Combine | null;
  readonly measure: Measure | null;
  readonly step: Step | null;
}

/** The kernels that a stage needs. */
export interface Kernels {
  /** What `open` takes of the arena. */
  readonly arenaBytes: number;
  /**
   * @param core of the module that `openKernelCore` gives for the stage
   * @throws AggregationError when the weightings cannot be used, `average-sum-overflow` among others
   */
  open(core: Core<FoldExports>): OpenedKernels;
}

/** What a combination takes of the arena, and how it is opened there. */
export interface PreparedCombine {
  readonly arenaBytes: number;
  open(core: Core<FoldExports>): Combine;
}

/** Whether both modules can do it. */
export function isSimpleCombine({ kind }: CombineSpec): boolean {
  return kind === 'mean' || kind === 'copy';
}

/** The mean, or a copy of one input. */
export function simpleCombine({ kind }: CombineSpec, weightings: readonly number[]): PreparedCombine {
  if (kind === 'mean') {
    return {
      arenaBytes: meanArenaBytes(weightings.length),
      open(core) {
        const plan = planMean(core, weightings);
        return {
          fold: (dtype, table, count, out, nonFinite) =>
            meanInto(core, plan, dtype, table, count, out, nonFinite === 'propagate'),
        };
      },
    };
  }
  return {
    arenaBytes: 0,
    open: (core) => ({
      fold(dtype, table, count, out) {
        const from = core.view(table, 4).getUint32(0, true);
        const byteLength = count * itemSize(dtypeOfCode(dtype));
        core.bytes(out, byteLength).set(core.bytes(from, byteLength));
        return true;
      },
    }),
  };
}

/** Sums of a chunk of k inputs. */
export function measureWidth({ kind }: MeasureSpec, k: number): number {
  return kind === 'pairwise-distances' ? (k * (k - 1)) / 2 : k;
}
