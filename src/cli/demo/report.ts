/** What the demo prints: a table that grows by a line per round for people, a line of JSON per round for programs. */
import { join } from 'node:path';
import { printJson, printLine } from '../output.ts';
import type { RoundReport } from './federation.ts';
import type { Split } from './shards.ts';

/** Where things are. */
export interface Places {
  /** Base URL of the server. */
  readonly server: string;
  /** Everything the demo wrote. */
  readonly folder: string;
  /** The server's data directory. */
  readonly serverFolder: string;
}

export interface Report {
  begin(split: Split): void;
  round(report: RoundReport): void;
  /** @param seconds from the start of the demo */
  end(branch: string, seconds: number): void;
}

/** One line per round and nothing else. */
export function jsonReport(places: Places): Report {
  return {
    begin() {},
    round: (report) => printJson({ ...report, server: places.server, folder: places.folder }),
    end() {},
  };
}

export function textReport(places: Places): Report {
  let last: RoundReport | undefined;
  return {
    begin(split) {
      for (const line of introduction(split, places)) printLine(line);
    },
    round(report) {
      if (report.round === 1) for (const line of header(report)) printLine(line);
      printLine(row(report));
      last = report;
    },
    end(branch, seconds) {
      if (last === undefined) return;
      for (const line of summary(branch, last, places, seconds)) printLine(line);
    },
  };
}

/** Who has what. */
export function introduction({ shards, heldOut }: Split, places: Places): string[] {
  return [
    `${shards.length} leaves learn to read handwritten digits together. Each is a process of its own that keeps its`,
    'digits to itself and sends only the weights of its model; the server averages them.',
    '',
    `server     ${places.server}`,
    `files      ${places.folder}`,
    '',
    ...shards.map(
      ({ name, samples, own }) =>
        `${name.padEnd(11)}${String(samples.labels.length).padStart(4)} digits, mostly ${own.join(', ')}`,
    ),
    `${'held out'.padEnd(11)}${heldOut.labels.length} digits, as many of each, that no leaf has`,
    '',
  ];
}

const COLUMNS = ['round', 'updates', 'weighting', 'averaged in', 'global'] as const;
const CENTRALISED = ['all data in', 'one place'] as const;

/** The two lines above the first round. */
export function header({ leaves }: RoundReport): string[] {
  const columns = COLUMNS.join('  ');
  const names = leaves.map((leaf) => cell(leaf.name, leafWidth(leaf.name))).join('');
  const alone = `   ${cell('each alone', names.length)}`;
  return [
    `${' '.repeat(columns.length)}${alone}   ${CENTRALISED[0]}`,
    `${columns}   ${names}   ${cell(CENTRALISED[1], CENTRALISED[0].length)}`,
  ];
}

/** One round; accuracies are those on the held-out digits. */
export function row(report: RoundReport): string {
  const { round, updates, target, totalWeighting, aggregationSeconds, accuracy, leaves, centralised } =
    report;
  const cells = [
    String(round),
    `${updates}/${target}`,
    String(totalWeighting),
    `${(aggregationSeconds * 1000).toFixed(1)} ms`,
    percent(accuracy),
  ];
  const left = cells.map((text, i) => cell(text, COLUMNS[i]!.length)).join('  ');
  const alone = leaves.map((leaf) => cell(percent(leaf.accuracy), leafWidth(leaf.name))).join('');
  return `${left}   ${alone}   ${cell(percent(centralised), CENTRALISED[0].length)}`;
}

/** How it ended, and where everything is. */
export function summary(branch: string, last: RoundReport, places: Places, seconds: number): string[] {
  const best = last.leaves.reduce((a, b) => (b.accuracy > a.accuracy ? b : a));
  const label = (text: string) => text.padEnd(28);
  return [
    '',
    `After ${last.round} round${last.round === 1 ? '' : 's'}, correct on held-out digits:`,
    `  ${label('together')}${percent(last.accuracy)}`,
    `  ${label(`best leaf alone (${best.name})`)}${percent(best.accuracy)}`,
    `  ${label('all data in one place')}${percent(last.centralised)}`,
    '',
    `global models   ${join(places.folder, 'global', 'round-*.npy')}`,
    `updates         ${join(places.folder, 'leaves', '*', 'update-*.npy')}`,
    `server's data   ${places.serverFolder}   (branch ${branch})`,
    '',
    `done in ${seconds.toFixed(1)} s`,
  ];
}

function leafWidth(name: string): number {
  return Math.max(name.length, 6) + 2;
}

function cell(text: string, width: number): string {
  return text.padStart(width);
}

function percent(accuracy: number): string {
  return `${(accuracy * 100).toFixed(1)} %`;
}
