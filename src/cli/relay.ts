import { parse } from 'node:path';
import { UnavailableError } from '../errors.ts';
import { readCredentials } from '../node/read-credentials.ts';
import { EventReport } from './event-report.ts';
import { UsageError } from './exit.ts';
import { checkServer, readNetwork } from './network.ts';
import { type OperatorOptions, openOperator } from './operator.ts';
import { LeafAbove } from './relay/above.ts';
import { BranchBelow } from './relay/below.ts';
import { RelayFolder } from './relay/folder.ts';
import { Relay } from './relay/relay.ts';
import { type RelayEvent, sentenceOf, stateOf } from './relay/report.ts';
import { integerOf } from './settings.ts';

export interface RelayCommand extends OperatorOptions {
  readonly credentials?: string;
  readonly branch: string;
  readonly above?: string;
  readonly proxy?: string;
  readonly ca?: string;
  readonly folder?: string;
  readonly follow: boolean;
  readonly rounds?: string;
  readonly once: boolean;
}

/** `cambium relay --credentials FILE --branch ID`: a branch of one server as a leaf of another. */
export async function relay(options: RelayCommand): Promise<void> {
  const { branch, follow, once, signal } = options;
  if (once && options.rounds !== undefined) throw new UsageError('--once is --rounds 1: give one of them');
  const most = options.rounds === undefined ? Infinity : integerOf('rounds', options.rounds, 1, 1e9);
  checkServer('--above', options.above);
  const below = new BranchBelow(await openOperator(options), branch);
  const credentials = await readCredentials(options.credentials);
  const { dir, name } = parse(options.credentials ?? 'leaf.json');
  const path = options.folder ?? `${dir === '' ? '' : `${dir}/`}${name}.relay`;
  const report = new EventReport<RelayEvent>(options.json, sentenceOf, stateOf);
  const above = new LeafAbove(credentials, {
    // The rest of the patience is ours.
    retry: { attempts: 3 },
    network: await readNetwork(options),
    connection: { server: options.above },
  });
  try {
    const folder = await RelayFolder.open(path);
    const tell = (event: RelayEvent) => report.tell(event);
    // Wrong credentials, tokens and addresses show now; a server that is away is waited for.
    await above.client.authenticate({ signal }).catch(unlessAway);
    await below.run(signal).catch(unlessAway);
    const { branchId, leafId: leaf } = above.client;
    tell({ event: 'relaying', branch, leaf, above: branchId, folder: path });
    const rounds = once ? 1 : most;
    await new Relay({ above, below, folder, tell, follow, rounds, signal }).run();
  } finally {
    report.close();
    await above.client.close();
  }
}

function unlessAway(error: unknown): void {
  if (!(error instanceof UnavailableError)) throw error;
}
