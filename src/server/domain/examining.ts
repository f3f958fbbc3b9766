import { FormatError } from '../../errors.ts';
import type { Examination } from '../../node/jobs.ts';
import type { Domain } from './domain.ts';
import { Refusal } from './refusal.ts';

/** Looks at a file that somebody has sent, every element of it. Throws Refusal with the codes of FormatError. */
export async function examineFile(domain: Domain, path: string, name: string): Promise<Examination> {
  try {
    return await domain.jobs.examine(path, {
      checkFinite: true,
      name,
      maxUnpackedBytes: domain.maxUpdateBytes,
    });
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const { code, message, tensor, offset } = error;
    const details = {
      ...(tensor === undefined ? {} : { tensor }),
      ...(offset === undefined ? {} : { offset }),
    };
    throw new Refusal('unprocessable', code, message, details, { cause: error });
  }
}
