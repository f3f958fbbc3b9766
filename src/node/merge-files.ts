import type { JobOptions, MergeReport, MergeRequest } from './jobs.ts';
import { startJobs } from './workers.ts';

/**
 * Adds weight files and partial sums, exactly and in constant memory, on a thread of its own: to another partial sum, or to
 * the mean. A tree of merges gives the bytes that one aggregation of all leaves gives, and leaves can be taken out again.
 *
 * The output appears under its name when it is complete; with an error nothing appears.
 *
 * @throws FormatError for a file that is neither, or damaged; AggregationError for files that do not fit together,
 *   `partial-leaf-duplicate` and `partial-leaf-unknown` among them; FileError for what the file system refuses, the reason of
 *   `signal`; TypeError, RangeError for wrong arguments
 */
export async function mergeFiles(request: MergeRequest, options: JobOptions = {}): Promise<MergeReport> {
  const jobs = startJobs({ threads: 1 });
  try {
    return await jobs.merge(request, options);
  } finally {
    await jobs.close();
  }
}
