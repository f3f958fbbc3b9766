/** `cambium demo`: a whole federation on this machine, with real data. */
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pino } from 'pino';
import { fileError } from '../node/file-errors.ts';
import { startJobs } from '../node/workers.ts';
import { startServer } from '../server/index.ts';
import { Http } from '../transport/http.ts';
import type { OperatorFile } from '../wire/cambium.ts';
import { VERSION } from '../wire/version.ts';
import { readDigits } from './demo/digits.ts';
import { federate } from './demo/federation.ts';
import { checkPackages } from './demo/packages.ts';
import { jsonReport, textReport } from './demo/report.ts';
import { splitDigits } from './demo/shards.ts';
import { EXIT, UsageError } from './exit.ts';
import { printLine, printNote } from './output.ts';
import { integerOf } from './settings.ts';

export interface DemoOptions {
  readonly rounds: string;
  readonly leaves: string;
  readonly seed: string;
  /** A folder that is empty or missing; a new temporary one unless given. */
  readonly data?: string | undefined;
  /** Keep the server running until interrupted. */
  readonly serve: boolean;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/**
 * Starts a server and a federation on it, and tells how each round went.
 *
 * @returns the exit code
 * @throws UsageError; UnavailableError `unavailable-training` when the training libraries or the data are not
 *   installed; what made the server, a leaf or a round fail; the reason of the signal
 */
export async function demo(options: DemoOptions): Promise<number> {
  const startedAt = performance.now();
  const rounds = integerOf('rounds', options.rounds, 1, 100);
  const leaves = integerOf('leaves', options.leaves, 2, 20);
  const seed = integerOf('seed', options.seed, 0, 2 ** 31 - 1);
  const { signal } = options;
  checkPackages();
  const folder = await openFolder(options.data);
  const split = splitDigits(await readDigits(), leaves, seed);

  const serverFolder = join(folder, 'server');
  const jobs = startJobs({ threads: 1 });
  // The server's log is one of the files to look at; stdout and stderr are the demo's.
  const log = pino.destination({ dest: join(folder, 'server.log'), sync: true });
  try {
    const server = await startServer({
      dataDir: serverFolder,
      port: 0,
      jobs,
      version: VERSION,
      logger: pino({ level: 'info' }, log),
    });
    try {
      const { token }: OperatorFile = JSON.parse(await readFile(server.operatorFile, 'utf8'));
      const http = new Http({ server: server.url, authorization: `Bearer ${token}` });
      const report = (options.json ? jsonReport : textReport)({ server: server.url, folder, serverFolder });
      report.begin(split);
      const branch = await federate({ http, split, rounds, seed, folder, signal, onRound: report.round });
      report.end(branch, (performance.now() - startedAt) / 1000);
      if (options.serve) {
        const print = options.json ? printNote : printLine;
        print(`the server goes on at ${server.url}; Ctrl-C stops it`);
        if (!signal.aborted) await once(signal, 'abort');
      }
    } finally {
      await server.close();
    }
  } finally {
    await jobs.close();
    log.end();
  }
  return EXIT.done;
}

/** Makes the folder of everything that the demo writes. What is in a folder already is not touched, so it must be empty. */
async function openFolder(path: string | undefined): Promise<string> {
  if (path === undefined) return mkdtemp(join(tmpdir(), 'cambium-demo-'));
  const folder = resolve(path);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    if ((await readdir(folder)).length === 0) return folder;
  } catch (cause) {
    throw fileError(cause, folder, 'write');
  }
  throw new UsageError(`--data ${path}: the folder is not empty, the demo begins in a new one`);
}
