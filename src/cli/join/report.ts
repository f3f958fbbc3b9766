/** What `cambium join` says. */
import { EventReport } from '../event-report.ts';
import { counted, formatBytes } from '../output.ts';

type JoinEvent =
  | {
      readonly event: 'joined';
      /** Null in the login generation until the server is there. */
      readonly leaf: string | null;
      readonly name: string | null;
      readonly branch: string | null;
      readonly folder: string;
    }
  | { readonly event: 'waiting'; readonly for: 'run' | 'aggregation' | 'server'; readonly reason?: string }
  | { readonly event: 'warning'; readonly code: string; readonly message: string }
  | { readonly event: 'model'; readonly aggregation: string; readonly bytes: number; readonly format: string }
  | {
      readonly event: 'training';
      readonly run: number;
      readonly round: number | null;
      readonly attempt: number;
    }
  | {
      readonly event: 'uploaded';
      readonly run: number;
      readonly round: number | null;
      readonly file: string;
      readonly weighting: number;
    }
  | { readonly event: 'metrics'; readonly mode: string; readonly aggregation: string | null }
  | { readonly event: 'failed'; readonly code: string; readonly message: string }
  | {
      readonly event: 'skipped';
      readonly run: number;
      readonly round: number | null;
      readonly reason: string;
    }
  | { readonly event: 'done'; readonly rounds: number };

/** A report of these. */
export type JoinReport = EventReport<JoinEvent>;

export function openJoinReport(json: boolean): JoinReport {
  return new EventReport(json, sentenceOf, stateOf);
}

/** What goes on from now; the reason may change while it does. */
function stateOf(event: JoinEvent): string | undefined {
  if (event.event === 'waiting') return `waiting for the ${event.for}`;
  return event.event === 'training' ? sentenceOf(event) : undefined;
}

function sentenceOf(event: JoinEvent): string {
  switch (event.event) {
    case 'joined':
      return `joined as leaf ${event.leaf ?? event.name} of branch ${event.branch}, files in ${event.folder}`;
    case 'waiting':
      return `waiting for the ${event.for}${event.reason === undefined ? '' : `: ${event.reason}`}`;
    case 'warning':
      return `warning: ${event.message} [${event.code}]`;
    case 'model':
      return `model ${event.aggregation}: ${formatBytes(event.bytes)}, ${event.format}`;
    case 'training':
      return `${placed(event)}: training${event.attempt > 1 ? `, attempt ${event.attempt}` : ''}`;
    case 'uploaded':
      return `${placed(event)}: uploaded ${event.file}, weighting ${event.weighting}`;
    case 'metrics':
      return event.aggregation === null
        ? `metrics (${event.mode}) are not sent: there is no aggregation yet that they could belong to`
        : `metrics (${event.mode}) sent for ${event.aggregation}`;
    case 'failed':
      return `failed: ${event.message} [${event.code}]`;
    case 'skipped':
      return `${placed(event)}: skipped, ${event.reason}`;
    case 'done':
      return `done: ${counted(event.rounds, 'round')}`;
  }
}

function placed({ run, round }: { readonly run: number; readonly round: number | null }): string {
  return round === null ? `run ${run}` : `run ${run}, round ${round}`;
}
