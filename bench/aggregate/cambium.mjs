import { startJobs } from '../../dist/index.js';
import { contend } from './contender.mjs';

const jobs = startJobs({ threads: 1 });
await contend(({ inputs, output }) => jobs.aggregate({ inputs, output, digest: false }));
await jobs.close();
