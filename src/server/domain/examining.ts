import { AggregationError, FormatError } from '../../errors.ts';
import type { Examination } from '../../node/jobs.ts';
import type { Contract } from './contract.ts';
import type { Domain } from './domain.ts';
import { Refusal } from './refusal.ts';

/** A file, or what would be in it. */
export interface UpdateFile {
  readonly path: string;
  readonly bytes?: Uint8Array | undefined;
}

/**
 * Looks at a file that somebody has sent, every element of it.
 *
 * @param sums whether an exact partial sum will do
 * @param model path of the global model that its norm refers to
 * @param tensors what the tensors of both are paired with
 * @throws Refusal with the codes of FormatError, and of AggregationError for what no sum can be
 */
export async function examineFile(
  domain: Domain,
  { path, bytes }: UpdateFile,
  name: string,
  {
    sums = false,
    model,
    tensors,
  }: {
    readonly sums?: boolean;
    readonly model?: string | undefined;
    readonly tensors?: Contract | undefined;
  } = {},
): Promise<Examination> {
  try {
    return await domain.jobs.examine(path, {
      checkFinite: true,
      name,
      bytes,
      model,
      tensors,
      maxUnpackedBytes: domain.maxUpdateBytes,
      sums,
    });
  } catch (error) {
    if (!(error instanceof FormatError || error instanceof AggregationError)) throw error;
    const { code, message, tensor } = error;
    const offset = error instanceof FormatError ? error.offset : undefined;
    const details = {
      ...(tensor === undefined ? {} : { tensor }),
      ...(offset === undefined ? {} : { offset }),
    };
    throw new Refusal('unprocessable', code, message, details, { cause: error });
  }
}
