import type { ConvertReport, ConvertRequest, JobOptions } from './jobs.ts';
import { startJobs } from './workers.ts';

/**
 * Converts a weight file into another format, in constant memory, on a thread of its own.
 *
 * The output appears under its name when it is complete; with an error nothing appears.
 *
 * @throws FormatError for a file that is no weight file, or does not fit the format; CambiumError `output-format` when
 *   neither `format` nor the name of the output says one; FileError; the reason of `signal`; TypeError, RangeError for wrong arguments
 */
export async function convertFile(request: ConvertRequest, options: JobOptions = {}): Promise<ConvertReport> {
  const jobs = startJobs({ threads: 1 });
  try {
    return await jobs.convert(request, options);
  } finally {
    await jobs.close();
  }
}
