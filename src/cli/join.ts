import { parse } from 'node:path';
import { UnavailableError } from '../errors.ts';
import { brokerAddress } from '../node/broker-place.ts';
import { Client } from '../node/client.ts';
import { readCredentials } from '../node/read-credentials.ts';
import { startJobs } from '../node/workers.ts';
import type { WeightsFormat } from '../tensor/layout.ts';
import { UsageError } from './exit.ts';
import { JoinFolder } from './join/folder.ts';
import { type FailurePolicy, Member } from './join/member.ts';
import { checkPlaceholders } from './join/program.ts';
import { openJoinReport } from './join/report.ts';
import { checkServer, readNetwork } from './network.ts';
import { integerOf } from './settings.ts';

export interface JoinOptions {
  readonly credentials?: string;
  readonly server?: string;
  readonly proxy?: string;
  readonly broker?: string;
  readonly ca?: string;
  readonly folder?: string;
  readonly format: string;
  readonly weighting?: string;
  readonly onFailure: string;
  readonly retries: string;
  readonly retryDelay: string;
  readonly timeout?: string;
  readonly rounds?: string;
  readonly once: boolean;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

const FORMATS = ['npy-object', 'npz', 'safetensors', 'torch'] as const satisfies readonly WeightsFormat[];
const POLICIES = ['retry', 'skip', 'stop'] as const satisfies readonly FailurePolicy[];

/** `cambium join --credentials FILE -- PROGRAM …`: a leaf whose training is any program. */
export async function join(program: readonly string[], options: JoinOptions): Promise<void> {
  const { signal, once, broker } = options;
  checkPlaceholders(program);
  const format = oneOf('format', options.format, FORMATS);
  const policy = oneOf('on-failure', options.onFailure, POLICIES);
  const retries = integerOf('retries', options.retries, 0, 1000);
  const retryMs = 1000 * secondsOf('retry-delay', options.retryDelay);
  const timeoutMs = options.timeout === undefined ? undefined : 1000 * secondsOf('timeout', options.timeout);
  if (once && options.rounds !== undefined) throw new UsageError('--once is --rounds 1: give one of them');
  const most = options.rounds === undefined ? Infinity : integerOf('rounds', options.rounds, 1, 1e9);
  const rounds = once ? 1 : most;
  const weighting = weightingOf(options.weighting);
  checkServer('--server', options.server);
  const credentials = await readCredentials(options.credentials);
  const { dir, name } = parse(options.credentials ?? 'leaf.json');
  const path = options.folder ?? `${dir === '' ? '' : `${dir}/`}${name}.join`;
  const folder = await JoinFolder.open(path, format);
  const report = openJoinReport(options.json);
  const client = new Client(credentials, {
    notices: { queue: 'newest', ...(broker !== undefined && { carrier: 'amqp' }) },
    broker: { url: broker },
    // The rest of the patience is ours: what is kept meanwhile, and what is told.
    retry: { attempts: 3 },
    network: await readNetwork(options),
    connection: { server: options.server },
  });
  client.on('warning', (warning) => report.tell({ event: 'warning', ...warning }));
  // Polling brings no aggregations of the other generations: their servers do not say which is the newest.
  const { generation } = client;
  const isTold =
    generation === 'cambium' ||
    brokerAddress(credentials, generation, options.server ?? credentials.server, { url: broker }) !==
      undefined;
  const jobs = startJobs({ threads: 1 });
  try {
    // Wrong credentials and a wrong address show now; a server that is away is waited for, unless there is one try only.
    await client.authenticate({ signal }).catch((error) => {
      if (once || !(error instanceof UnavailableError)) throw error;
      report.tell({ event: 'waiting', for: 'server', reason: error.message });
    });
    const { leafId, leafName, branchId: branch } = client;
    // A login has no id before the server has given one.
    report.tell({ event: 'joined', leaf: leafId || null, name: leafName, branch, folder: path });
    const member = new Member({
      ...{ client, folder, jobs, report, program, format, policy, retries, retryMs, timeoutMs },
      ...{ weighting, rounds, signal, isTold },
    });
    await member.takePart();
  } finally {
    report.close();
    await client.close();
    await jobs.close();
  }
}

function oneOf<T extends string>(option: string, text: string, values: readonly T[]): T {
  const value = values.find((candidate) => candidate === text);
  if (value === undefined) throw new UsageError(`--${option} ${text}: ${values.join(', ')}`);
  return value;
}

function secondsOf(option: string, text: string): number {
  const seconds = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || seconds > 2_000_000) {
    throw new UsageError(`--${option} ${text}: seconds, up to 2000000`);
  }
  return seconds;
}

function weightingOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!(value > 0 && value <= Number.MAX_SAFE_INTEGER))
    throw new UsageError(`--weighting ${text}: a number above 0`);
  return value;
}
