import {
  STEP_ADAGRAD,
  STEP_ADAM,
  STEP_BETA1,
  STEP_BETA2,
  STEP_LEARNING_RATE,
  STEP_MOMENTUM,
  STEP_ORIGIN,
  STEP_PARAMETER_BYTES,
  STEP_RATE,
  STEP_REST1,
  STEP_REST2,
  STEP_SCALE,
  STEP_TAU,
  STEP_YOGI,
} from '../../assembly/abi.ts';
import type { Core } from './core.ts';
import type { StrategyExports } from './exports.ts';

/** Rules of steps by name. */
const RULES = {
  rate: STEP_RATE,
  momentum: STEP_MOMENTUM,
  adagrad: STEP_ADAGRAD,
  adam: STEP_ADAM,
  yogi: STEP_YOGI,
} as const;

/** The formulas stand at the head of assembly/step.ts. What a rule does not have is not looked at. */
export interface StepParameters {
  /** What the difference to the average is multiplied by before anything else. */
  readonly scale: number;
  /** The average is one of differences to the model, not of models (default false). */
  readonly differences?: boolean | undefined;
  readonly learningRate?: number | undefined;
  readonly beta1?: number | undefined;
  readonly beta2?: number | undefined;
  readonly tau?: number | undefined;
}

/** A rule and its parameters in the arena of one core. */
export interface PreparedStep {
  readonly rule: number;
  readonly parameters: number;
}

/** Bytes of the arena that `prepareStep` takes. */
export const STEP_ARENA_BYTES = STEP_PARAMETER_BYTES + 16;

/** Puts the parameters into the arena of `core`. */
export function prepareStep(
  core: Core<StrategyExports>,
  rule: keyof typeof RULES,
  { scale, differences = false, learningRate = 1, beta1 = 0, beta2 = 0, tau = 0 }: StepParameters,
): PreparedStep {
  const parameters = core.take(STEP_PARAMETER_BYTES);
  const view = core.view(parameters, STEP_PARAMETER_BYTES);
  view.setFloat64(STEP_SCALE, scale, true);
  view.setFloat64(STEP_LEARNING_RATE, learningRate, true);
  view.setFloat64(STEP_BETA1, beta1, true);
  view.setFloat64(STEP_REST1, 1 - beta1, true);
  view.setFloat64(STEP_BETA2, beta2, true);
  view.setFloat64(STEP_REST2, 1 - beta2, true);
  view.setFloat64(STEP_TAU, tau, true);
  view.setFloat64(STEP_ORIGIN, differences ? 0 : 1, true);
  return { rule: RULES[rule], parameters };
}

/**
 * Takes a step of `count` elements from the model towards the average. Blocks have any alignment and do not overlap.
 *
 * @param dtype code of the element type of average and model
 * @param average address of the average; becomes the new model
 * @param model address of the model
 * @param first address of m in its state dtype, of `second` likewise v; they become those of the next round. 0 where the
 *   rule has none
 * @returns false when a result is NaN or infinite; NaN is canonical then
 */
export function stepInto(
  core: Core<StrategyExports>,
  { rule, parameters }: PreparedStep,
  dtype: number,
  average: number,
  model: number,
  first: number,
  second: number,
  count: number,
): boolean {
  return core.exports.step(rule, dtype, parameters, average, model, first, second, count) !== 0;
}

/**
 * Adds the gradient of FedProx's term, μ·(x - global), to `count` elements of a gradient, in binary64, rounded once.
 *
 * @param dtype code of a float or complex element type
 * @returns false when a result is NaN or infinite; NaN is canonical then
 */
export function proximalInto(
  core: Core<StrategyExports>,
  dtype: number,
  mu: number,
  gradient: number,
  model: number,
  global: number,
  count: number,
): boolean {
  return core.exports.proximal(dtype, mu, gradient, model, global, count) !== 0;
}
