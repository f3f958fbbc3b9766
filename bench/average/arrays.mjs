// The arrays of a job: those of its files, in memory.
import { readElements } from '../aggregate/elements.mjs';
import { job } from '../peers/contend.mjs';

export const arrays = await Promise.all(job.inputs.map(({ path }) => readElements(path)));
export const weightings = job.inputs.map(({ weighting }) => weighting);
