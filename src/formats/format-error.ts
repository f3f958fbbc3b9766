import type { ReadRefusal } from '../core/records.ts';
import { FormatError } from '../errors.ts';
import { printable } from '../tensor/text.ts';

/** A FormatError whose message names file, tensor and byte. */
export function formatError(
  code: string,
  sentence: string,
  place: {
    readonly file: string;
    /** Name or position. */
    readonly tensor?: string | number | undefined;
    readonly offset?: number | undefined;
  },
): FormatError {
  const label = typeof place.tensor === 'string' ? JSON.stringify(place.tensor) : place.tensor;
  const tensor = label === undefined ? '' : `tensor ${label}: `;
  const offset = place.offset === undefined ? '' : ` (at byte ${place.offset})`;
  return new FormatError(code, `${place.file}: ${printable(tensor + sentence)}${offset}`, place);
}

/**
 * The error for what the core refuses. Its words are loaded when something is refused: pages that read good files never
 * fetch them.
 *
 * @param file as the caller named it
 * @param tensor name or position of the tensor, where one is known
 */
export async function refusalError(
  refusal: ReadRefusal,
  file: string,
  tensor?: string | number,
): Promise<FormatError> {
  const { describeRefusal } = await import('./refusals.ts');
  const [code, sentence] = describeRefusal(refusal);
  return formatError(code, sentence, { file, tensor, offset: refusal.offset });
}
