/** A round as a table on a terminal that is drawn over itself as long as the round goes on. */
import type { RoundBody, UpdateBody } from '../wire/cambium.ts';
import { formatBytes, printLine, tableLines } from './output.ts';
import { aggregationOf, failureOf, roundStanding } from './round.ts';

/** What stands on the terminal. */
export interface Drawn {
  readonly id: string;
  readonly lines: number;
}

/** Leaves that are shown; of more the rest is counted. */
const SHOWN = 20;

/** Of a terminal that does not say how wide it is, or says 0 as those of containers do. */
const COLUMNS = 80;

/** Draws a round over what was drawn of it before; another round goes below. */
export function redrawRound(round: RoundBody, drawn: Drawn | undefined): Drawn {
  const columns = process.stdout.columns || COLUMNS;
  // A line that the terminal breaks would be two when it is drawn over.
  const lines = roundTable(round).map((line) => line.slice(0, columns));
  if (drawn?.id === round.id) process.stdout.write(`\u001b[${drawn.lines}A\u001b[J`);
  for (const line of lines) printLine(line);
  return { id: round.id, lines: lines.length };
}

/** The lines of a round: how it stands, who came with what, who is missing, how long each step took. */
export function roundTable(round: RoundBody): string[] {
  const { updates, missing, excluded, opened_at } = round;
  const aggregation = aggregationOf(round);
  const isOver = round.closed_at !== null;
  const rows = [
    ...updates.map((update) => [
      update.leaf_name,
      standingOf(update),
      after(update.received_at - opened_at),
      String(update.weighting),
      normOf(update),
      formatBytes(update.byte_length),
      update.receive_ms === null ? '-' : seconds(update.receive_ms),
      update.examine_ms === null ? '-' : seconds(update.examine_ms),
    ]),
    ...missing.map((leaf) => [leaf.leaf_name, isOver ? 'missed it' : 'missing', '', '', '', '', '', '']),
  ];
  const rest = rows.length - SHOWN;
  const header = ['leaf', '', 'after', 'weighting', 'norm', 'size', 'received', 'examined'];
  return [
    roundStanding(round),
    ...(aggregation === undefined ? [] : [`  aggregation ${aggregation}`]),
    ...(round.failure === null ? [] : [`  ${failureOf(round)}`]),
    ...stepsOf(round).map((line) => `  ${line}`),
    ...(rows.length > 0 ? tableLines(header, rows.slice(0, SHOWN)).map((line) => `  ${line}`) : []),
    ...(rest > 0 ? [`  and ${rest} more`] : []),
    ...(excluded.length > 0 ? [`  ${excluded.length} excluded`] : []),
  ];
}

function standingOf({ staleness, left_out }: UpdateBody): string {
  if (left_out !== null) return `left out: ${left_out}`;
  return staleness > 0 ? `late by ${staleness}` : 'came';
}

/** `Δ` is the distance to the global model; without it is the norm of the weights. */
function normOf({ norm, norm_base }: UpdateBody): string {
  if (norm === null) return '-';
  return `${norm_base === null ? '' : 'Δ '}${norm.toPrecision(4)}`;
}

function stepsOf(round: RoundBody): string[] {
  const { opened_at, closed_at, started_at, closes_at, aggregation_seconds, write_seconds } = round;
  const steps: string[] = [];
  if (closed_at !== null) steps.push(`open for ${seconds(closed_at - opened_at)}`);
  if (closed_at !== null && started_at !== null) steps.push(`waited ${seconds(started_at - closed_at)}`);
  if (aggregation_seconds !== null) steps.push(`aggregated in ${seconds(1000 * aggregation_seconds)}`);
  if (write_seconds !== null) steps.push(`on the disk after ${seconds(1000 * write_seconds)}`);
  const end = round.status === 'summed' ? 'waits until' : 'closes at';
  if (closes_at !== null) steps.push(`${end} ${new Date(closes_at).toISOString()}`);
  return steps.length > 0 ? [steps.join(', ')] : [];
}

function after(ms: number): string {
  return seconds(Math.max(0, ms));
}

/** Three digits for what is short, a tenth for what is long. */
function seconds(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
