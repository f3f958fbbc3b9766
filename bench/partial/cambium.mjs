import { startJobs } from '../../dist/index.js';
import { contend, job } from '../peers/contend.mjs';

const { inputs, without, output, to, threads } = job;
const format = to === 'mean' ? 'npy-object' : undefined;
const jobs = startJobs({ threads: 1 });
await contend(() => jobs.merge({ inputs, without, output, to, format, threads, digest: false }));
await jobs.close();
