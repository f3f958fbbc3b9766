/**
 * The contract of aggregation rules.
 *
 *     inputs ─► settle: measure passes ─► weightings ─► combine K elements to one ─► step with global model and state
 *
 * A rule is data: it names kernels and their parameters, so that it travels to worker threads as it is. What needs a look
 * at whole models (`settle`) runs on one thread in plain arithmetic over sums whose bits do not depend on ranges or threads.
 */
import type { TensorSpec } from '../../formats/encoding.ts';

/** How K elements become one. `kernels.ts` opens it. */
export type CombineSpec =
  /** Σ wᵢ·xᵢ / Σ wᵢ, exact, rounded once. */
  | { readonly kind: 'mean' }
  /** The middle value, or the mean of the two middle ones; weightings count for nothing. */
  | { readonly kind: 'median' }
  /** The value at half of the total weighting. */
  | { readonly kind: 'weighted-median' }
  /** The mean without ⌊trim·K⌋ values at each end; weightings count for nothing. */
  | { readonly kind: 'trimmed-mean'; readonly trim: number }
  /** The elements of the only input as they are, NaN and all. */
  | { readonly kind: 'copy' };

/**
 * A pass over all elements that only measures: binary64 sums for the whole model, in the order of the inputs. A sum that
 * NaN or infinity had a part in, or that overflowed, is not finite. `measures.ts` opens it.
 */
export interface MeasureSpec {
  readonly kind: /** ‖xᵢ‖², k sums. */
    | 'squared-norms'
    /** ‖xᵢ − x‖² with the global model x, k sums. */
    | 'squared-differences'
    /** ‖xᵢ − z‖² with the centre z = Σ wᵢ·xᵢ / Σ wᵢ, k sums. */
    | 'squared-to-centre'
    /** ‖xᵢ − xⱼ‖² of all pairs, (0,1) (0,2) … (0,k-1) (1,2) …: k(k - 1)/2 sums. */
    | 'pairwise-distances';
  /** Weightings that the pass works with, of the inputs in canonical order; one of weighting 0 has no sum. */
  readonly weightings: readonly number[];
}

/** What becomes of the combined elements when there is a global model. */
export type StepSpec = (
  | RateSpec
  /** Gradient descent with momentum. */
  | { readonly kind: 'momentum'; readonly learningRate: number; readonly beta1: number }
  /** Adaptive rates. */
  | {
      readonly kind: 'adagrad' | 'adam' | 'yogi';
      readonly learningRate: number;
      readonly beta1: number;
      /** Not of adagrad. */
      readonly beta2?: number | undefined;
      readonly tau: number;
    }
) & {
  /** The inputs are differences to the global model, not models. */
  readonly differences?: boolean | undefined;
};

/** x + s·(average - x), s being the rate that was settled; 1 leaves the average as it is. */
interface RateSpec {
  readonly kind: 'rate';
}

/** What a rule knows before it looks at elements. */
export interface SettleContext {
  /** Ids of the inputs that count, in canonical order: a tie goes to the first. */
  readonly leaves: readonly string[];
  /** Theirs; none is zero. */
  readonly weightings: readonly number[];
  readonly tensors: readonly TensorSpec[];
}

/** What a rule has decided. */
export interface Settled {
  /** Of the inputs in canonical order, for `combine`; an input of weighting 0 is not read again. */
  readonly weightings: readonly number[];
  /** For the step: how far to go from the global model to what was combined, 1 unless given. */
  readonly rate?: number | undefined;
}

/** An aggregation rule with its parameters. */
export interface Strategy {
  /** As commands and policies name it, kebab-case. */
  readonly name: string;
  readonly combine: CombineSpec;
  readonly step?: StepSpec | undefined;
  /** Whether the rule refers to the global model. */
  readonly needsModel?: boolean | undefined;
  /** Fewest inputs (with a weighting above zero) that it is defined for, 1 unless given. */
  readonly minimumInputs?: number | undefined;
  /** Whether the rule is defined for the dtype with this code. */
  supports(dtype: number): boolean;
  /**
   * Decides weightings. Each `yield` is a pass over all elements, and is answered with its sums.
   *
   * @throws AggregationError `strategy-too-few-inputs` and what the rule finds wrong
   */
  settle?(context: SettleContext): Generator<MeasureSpec, Settled, Float64Array>;
}

/** A rule by name, as data that travels to other threads. `strategies` makes rules themselves, which stay where they are. */
export interface StrategyRequest {
  /** One of `STRATEGY_NAMES`. */
  readonly name: string;
  readonly parameters?: Readonly<Record<string, number>> | undefined;
  /** By leaf, for rules that want to know something of each: local steps of `fednova`, staleness of `buffered`. */
  readonly perLeaf?: ReadonlyMap<string, number> | undefined;
  /** A rule itself has one. */
  readonly combine?: never;
}

/** A rule by name, for commands, policies and documentation. */
export interface StrategyDefinition {
  readonly name: string;
  /** Parameters with their defaults; null has to be given. */
  readonly parameters: Readonly<Record<string, number | null>>;
  /** What the rule wants to know of each leaf, for example `local steps`; absent where that is nothing. */
  readonly perLeaf?: string | undefined;
  /** @throws AggregationError `strategy-parameter` */
  make(parameters: Readonly<Record<string, number>>, perLeaf: ReadonlyMap<string, number>): Strategy;
}
