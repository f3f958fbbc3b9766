/** Arguments of jobs, looked at before a thread is asked: there a mistake would come back as a fault of ours, or be believed. */
import { resolve } from 'node:path';
import { openRequest } from '../aggregate/strategies/index.ts';
import { CambiumError } from '../errors.ts';
import { QUANTISATIONS } from '../tensor/layout.ts';
import type { AggregateInput, AggregateRequest, ConvertRequest, MergeRequest } from './jobs.ts';

/** @throws TypeError, RangeError; AggregationError `strategy-unknown`, `strategy-parameter`; CambiumError `output-taken` */
export function checkAggregate(request: AggregateRequest): void {
  checkWork(request);
  openRequest(request.strategy);
  const { output, model, state } = request;
  checkApart('state', state, { output, model });
}

/** @throws TypeError, RangeError */
export function checkMerge(request: MergeRequest): void {
  checkWork(request);
  if (request.to !== 'sum' && request.to !== 'mean') {
    throw new RangeError(`to is 'sum' or 'mean', not ${request.to}`);
  }
}

/** @throws TypeError, RangeError; CambiumError `output-taken` */
export function checkConvert({ input, output, weighting, encode }: ConvertRequest): void {
  checkPath('input', input);
  checkPath('output', output);
  checkWeighting(weighting);
  if (weighting != null && !(weighting >= 0 && weighting < Number.POSITIVE_INFINITY)) {
    throw new RangeError(`a weighting is at least 0 and finite, not ${weighting}`);
  }
  checkApart('residual', encode?.residual, { input, output, model: encode?.differenceTo });
  const quantise = encode?.quantise;
  if (quantise !== undefined && !QUANTISATIONS.includes(quantise)) {
    throw new RangeError(`quantise is one of ${QUANTISATIONS.join(', ')}, not ${quantise}`);
  }
}

function checkWork({ inputs, output, threads, nonFinite }: AggregateRequest | MergeRequest): void {
  if (!Array.isArray(inputs)) throw new TypeError('inputs is an array of { path }');
  for (const { path, weighting } of inputs as readonly AggregateInput[]) {
    checkPath('path of an input', path);
    checkWeighting(weighting);
  }
  checkPath('output', output);
  if (threads !== undefined && !(Number.isSafeInteger(threads) && threads >= 1)) {
    throw new RangeError(`threads is a whole number from 1 on, not ${threads}`);
  }
  if (nonFinite !== undefined && nonFinite !== 'reject' && nonFinite !== 'propagate') {
    throw new RangeError(`nonFinite is 'reject' or 'propagate', not ${nonFinite}`);
  }
}

function checkPath(what: string, path: string): void {
  if (typeof path !== 'string') throw new TypeError(`the ${what} is a string, not ${path}`);
}

/** What is written beside the output would take its place, or that of what is read. */
function checkApart(
  what: string,
  path: string | undefined,
  others: Readonly<Record<string, string | undefined>>,
): void {
  if (path === undefined) return;
  for (const [other, taken] of Object.entries(others)) {
    if (taken === undefined || resolve(taken) !== resolve(path)) continue;
    throw new CambiumError(
      'output-taken',
      `${path} is the ${what} and the ${other}: give each a file of its own`,
    );
  }
}

/** Its value is looked at beside those of the other inputs. */
function checkWeighting(weighting: number | null | undefined): void {
  if (weighting != null && typeof weighting !== 'number') {
    throw new TypeError(`a weighting is a number, not ${weighting}`);
  }
}
