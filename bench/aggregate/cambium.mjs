import { startJobs } from '../../dist/index.js';
import { contend, job } from '../peers/contend.mjs';

const { inputs, output, threads, strategy, model, state } = job;
const jobs = startJobs({ threads: 1 });
await contend(() => jobs.aggregate({ inputs, output, threads, strategy, model, state, digest: false }));
await jobs.close();
