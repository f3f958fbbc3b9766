import { Refusal } from './refusal.ts';

/** Longer names are no names; the limit keeps lists and file names in bounds. */
const MAX_NAME_LENGTH = 200;

/**
 * Checks a name that a person chose.
 *
 * @throws Refusal `name-invalid`
 */
export function checkName(name: string): string {
  // Control characters would let a name write into logs and terminals; half a surrogate pair is no text, and not kept as it is.
  if (name.trim() === '' || name.length > MAX_NAME_LENGTH || /[\p{Cc}\p{Cs}]/u.test(name)) {
    throw new Refusal(
      'unprocessable',
      'name-invalid',
      `a name has 1 to ${MAX_NAME_LENGTH} characters, not only spaces and no control characters`,
    );
  }
  return name;
}
