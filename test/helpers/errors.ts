import * as assert from 'uvu/assert';
import { type CambiumError, isCambiumError } from '../../src/errors.ts';

/** Runs `work`, which must fail with an error of ours that has one of the codes (alternatives separated by a bar). */
export async function failsWith(code: string, work: () => unknown): Promise<CambiumError> {
  let error: unknown;
  try {
    await work();
  } catch (caught) {
    error = caught;
  }
  if (error === undefined) assert.unreachable(`expected ${code}, but nothing was thrown`);
  if (!isCambiumError(error)) throw error;
  assert.ok(code.split('|').includes(error.code), `expected ${code}, got ${error.code}: ${error.message}`);
  return error;
}
