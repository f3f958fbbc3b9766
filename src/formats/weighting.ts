import type { Layout } from '../tensor/layout.ts';

/** The longest text that can be a number worth reading. */
const MAX_TEXT = 400;

/** A weighting and how it is stored. */
interface StoredWeighting {
  readonly value: number;
  readonly type: 'int' | 'float';
}

/**
 * The weighting that a decimal text means, whole ones up to 2^53 - 1; undefined for any other text. Whole numbers with
 * a point or an exponent are floats.
 */
export function parseWeighting(text: string): StoredWeighting | undefined {
  const isNumber = text.length <= MAX_TEXT && /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i.test(text);
  const type = /^[+-]?\d+$/.test(text) ? 'int' : 'float';
  const value = isNumber ? Number(text) : Number.NaN;
  return Number.isFinite(value) && (type === 'float' || Number.isSafeInteger(value))
    ? { value, type }
    : undefined;
}

/**
 * A weighting as the text that `parseWeighting` reads as the same number of the same kind.
 *
 * @param type whole numbers are ints unless given
 * @throws RangeError for a number that is not finite, or not what its kind can hold
 */
export function spellWeighting(weighting: number, type?: Layout['weightingType']): string {
  if (!Number.isFinite(weighting)) throw new RangeError(`the weighting ${weighting} has no decimal form`);
  const isFloat = type === 'float' || !Number.isSafeInteger(weighting);
  if (isFloat && type === 'int') {
    throw new RangeError(`the weighting ${weighting} cannot be stored as an int: it is no safe integer`);
  }
  if (isFloat && Object.is(weighting, -0)) return '-0.0';
  return isFloat && Number.isInteger(weighting) && Math.abs(weighting) < 1e21
    ? `${weighting}.0`
    : String(weighting);
}
