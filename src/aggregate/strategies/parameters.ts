import { AggregationError } from '../../errors.ts';

/** A parameter that counts. @throws AggregationError `strategy-parameter` */
export function checkCount(name: string, key: string, value: number, least: number): number {
  if (!Number.isSafeInteger(value) || value < least) {
    refuseParameter(name, key, value, `a whole number of at least ${least}`);
  }
  return value;
}

/** A parameter that measures. @throws AggregationError `strategy-parameter` */
export function checkRange(name: string, key: string, value: number, least: number, most: number): number {
  if (!(value >= least && value <= most)) refuseParameter(name, key, value, `within ${least} and ${most}`);
  return value;
}

/** A rate or the like. @throws AggregationError `strategy-parameter` */
export function checkPositive(name: string, key: string, value: number): void {
  if (!(value > 0 && value < Infinity)) refuseParameter(name, key, value, 'above 0 and finite');
}

/** @throws AggregationError `strategy-parameter` */
export function refuseParameter(name: string, key: string, value: number, expected: string): never {
  throw new AggregationError('strategy-parameter', `${name}: ${key} is ${value}, it must be ${expected}`);
}
