/** A server on toy files that its test kills. Prints its address when it listens. */
import { startServer } from '../../src/server/index.ts';
import { quietLog, ToyJobs } from './harness.ts';

const server = await startServer({
  dataDir: process.argv[2]!,
  port: 0,
  jobs: new ToyJobs(),
  keepUpdates: 1000,
  logger: quietLog(),
});
console.log(server.url);
