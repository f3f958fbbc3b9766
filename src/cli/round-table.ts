/** A round as a table on a terminal that is drawn over itself as long as the round goes on. */
import type { RoundBody } from '../wire/cambium.ts';
import { formatBytes, printLine } from './output.ts';
import { roundLine } from './round.ts';

/** What stands on the terminal. */
export interface Drawn {
  readonly id: string;
  readonly lines: number;
}

/** Leaves that are shown; of more the rest is counted. */
const SHOWN = 20;

/** Draws a round over what was drawn of it before; another round goes below. */
export function redrawRound(round: RoundBody, drawn: Drawn | undefined): Drawn {
  const lines = tableOf(round);
  if (drawn?.id === round.id) process.stdout.write(`\u001b[${drawn.lines}A\u001b[J`);
  for (const line of lines) printLine(line);
  return { id: round.id, lines: lines.length };
}

function tableOf(round: RoundBody): string[] {
  const { updates, missing, excluded, opened_at, closed_at, started_at, closes_at } = round;
  const times: string[] = [];
  if (closed_at !== null) times.push(`open for ${seconds(closed_at - opened_at)}`);
  if (closed_at !== null && started_at !== null) times.push(`waited ${seconds(started_at - closed_at)}`);
  if (closes_at !== null) times.push(`closes at ${new Date(closes_at).toISOString()}`);
  const rows = [
    ...updates.map((update) => {
      const about = [`weighting ${update.weighting}`, formatBytes(update.byte_length)];
      about.push(`after ${seconds(update.received_at - opened_at)}`);
      if (update.staleness > 0) about.push(`${update.staleness} rounds late`);
      if (update.left_out !== null) about.push(`left out: ${update.left_out}`);
      return `  came     ${update.leaf_name}  ${about.join(', ')}`;
    }),
    ...missing.map((leaf) => `  missing  ${leaf.leaf_name}`),
  ];
  const rest = rows.length - SHOWN;
  return [
    roundLine(round),
    ...(times.length > 0 ? [`  ${times.join(', ')}`] : []),
    ...rows.slice(0, SHOWN),
    ...(rest > 0 ? [`  and ${rest} more`] : []),
    ...(excluded.length > 0 ? [`  ${excluded.length} excluded`] : []),
  ];
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
