import { AggregationError } from '../../errors.ts';

/** Refuses a parameter of a rule. Code `strategy-parameter`. */
function refuse(name: string, key: string, value: number, expected: string): never {
  throw new AggregationError('strategy-parameter', `${name}: ${key} is ${value}, it must be ${expected}`);
}

/** A parameter that counts. @throws AggregationError `strategy-parameter` */
export function checkCount(name: string, key: string, value: number, least: number): number {
  if (!Number.isSafeInteger(value) || value < least) {
    refuse(name, key, value, `a whole number of at least ${least}`);
  }
  return value;
}

/** A parameter that measures. @throws AggregationError `strategy-parameter` */
export function checkRange(name: string, key: string, value: number, least: number, most: number): number {
  if (!(value >= least && value <= most)) refuse(name, key, value, `within ${least} and ${most}`);
  return value;
}
