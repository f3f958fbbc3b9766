import { counted, formatBytes } from '../output.ts';

/** A round by its numbers. */
interface Place {
  readonly run: number;
  readonly round: number;
}

/** What `cambium relay` says: a line for each thing that happened. Rounds are those of the branch below. */
export type RelayEvent =
  | {
      readonly event: 'relaying';
      readonly branch: string;
      readonly leaf: string;
      /** The branch of the server above. */
      readonly above: string | null;
      readonly folder: string;
    }
  | {
      readonly event: 'waiting';
      readonly for: 'round' | 'run' | 'aggregation' | 'server';
      readonly reason?: string;
    }
  | {
      readonly event: 'started';
      readonly run: number;
      /** The run above that it belongs to. */
      readonly above: number;
      /** The aggregation that it began with. */
      readonly model: string | null;
    }
  | (Place & {
      readonly event: 'sum';
      readonly leaves: number;
      readonly weighting: number;
      readonly bytes: number;
    })
  | (Place & {
      readonly event: 'uploaded';
      readonly above: Place;
      readonly file: string;
      readonly duplicate: boolean;
    })
  | (Place & {
      readonly event: 'handed-down';
      readonly aggregation: string;
      readonly leaves: number | null;
      readonly weighting: number | null;
      /** Why the sum of the round is not in it. */
      readonly left_out: string | null;
    })
  | { readonly event: 'done'; readonly rounds: number };

/** What goes on from now; the reason may change while it does. */
export function stateOf(event: RelayEvent): string | undefined {
  return event.event === 'waiting' ? `waiting for the ${event.for}` : undefined;
}

export function sentenceOf(event: RelayEvent): string {
  switch (event.event) {
    case 'relaying':
      return `relaying branch ${event.branch} as leaf ${event.leaf} of branch ${event.above}, files in ${event.folder}`;
    case 'waiting':
      return `waiting for the ${event.for}${event.reason === undefined ? '' : `: ${event.reason}`}`;
    case 'started':
      return `run ${event.run} started for run ${event.above} above${event.model === null ? '' : `, with model ${event.model}`}`;
    case 'sum':
      return `${placed(event)}: sum of ${event.leaves} leaves, weighting ${event.weighting}, ${formatBytes(event.bytes)}`;
    case 'uploaded':
      return `${placed(event)}: ${event.duplicate ? 'already' : 'uploaded'} in ${placed(event.above)} above`;
    case 'handed-down':
      return `${placed(event)}: handed down ${event.aggregation}, weighting ${event.weighting}${event.left_out === null ? '' : `, without this sum: ${event.left_out}`}`;
    case 'done':
      return `done: ${counted(event.rounds, 'round')}`;
  }
}

function placed({ run, round }: Place): string {
  return `run ${run}, round ${round}`;
}
