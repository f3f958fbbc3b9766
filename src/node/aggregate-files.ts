import type { AggregateReport, AggregateRequest, JobOptions } from './jobs.ts';
import { startJobs } from './workers.ts';

/**
 * Averages weight files into a weight file, in constant memory, on a thread of its own.
 *
 * The output appears under its name when it is complete; with an error nothing appears.
 *
 * @throws FormatError for a file that is no weight file, AggregationError for files that do not fit together and for a model or
 *   a state that the rule does not look at (`strategy-model-unused`, `strategy-state-unused`), FileError for what the file system
 *   refuses, the reason of `signal`; TypeError, RangeError for wrong arguments
 */
export async function aggregateFiles(
  request: AggregateRequest,
  options: JobOptions = {},
): Promise<AggregateReport> {
  const jobs = startJobs({ threads: 1 });
  try {
    return await jobs.aggregate(request, options);
  } finally {
    await jobs.close();
  }
}
