/** What commands print: JSON for machines on stdout, tables for people on stdout, everything else on stderr. */
import { CambiumError } from '../errors.ts';
import { printable } from '../tensor/text.ts';
import { isInterrupt } from './exit.ts';

/** JSON in one line; numbers that JSON does not have become the strings `NaN`, `Infinity` and `-Infinity`. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) =>
    typeof member === 'number' && !Number.isFinite(member) ? String(member) : member,
  );
}

/** Prints a value as one line of JSON. */
export function printJson(value: unknown): void {
  process.stdout.write(`${toJson(value)}\n`);
}

/** `1 update`, `2 updates`. */
export function counted(count: number, noun: string, plural = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : plural}`;
}

/** Prints a line for people. */
export function printLine(line = ''): void {
  process.stdout.write(`${line}\n`);
}

/** Prints a remark that is not part of the result. */
export function printNote(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Prints rows in columns as wide as their widest cell; numbers are aligned to the right. */
export function printTable(header: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  for (const line of tableLines(header, rows)) printLine(line);
}

/** The lines of such a table, the header first. Cells come from files and strangers: what would steer a terminal is escaped. */
export function tableLines(
  header: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string[] {
  const cells = rows.map((row) => row.map((cell) => printable(String(cell))));
  const widths = header.map((title, column) =>
    Math.max(title.length, ...cells.map((row) => row[column]?.length ?? 0)),
  );
  const isNumber = header.map((_, column) => rows.every((row) => typeof row[column] === 'number'));
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) =>
        isNumber[column] ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
      )
      .join('  ')
      .trimEnd();
  return [line(header), ...cells.map(line)];
}

/** Prints an error: JSON on stdout for machines, one sentence on stderr, the chain of causes when asked for. */
export function printError(
  error: unknown,
  options: { readonly json: boolean; readonly verbose: boolean },
): void {
  const message = error instanceof Error ? error.message : String(error);
  const code =
    error instanceof CambiumError ? error.code : isInterrupt(error) ? 'interrupted' : 'internal-error';
  if (options.json) printJson({ error: message, message, code });
  printNote(`cambium: ${message} [${code}]`);
  if (!options.verbose) return;
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause)
    printNote(cause.stack ?? cause.message);
}

/** Bytes for people: `1.5 MB`, powers of ten. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${unit === 0 ? Math.round(value) : value.toPrecision(3)} ${units[unit]}`;
}

/** A progress line on a terminal; silent elsewhere, so that logs stay readable. */
export function openProgress(title: string): { update(done: number, total: number): void; close(): void } {
  if (!process.stderr.isTTY) return { update() {}, close() {} };
  const width = 30;
  return {
    update(done, total) {
      const share = total === 0 ? 1 : done / total;
      const bar = '█'.repeat(Math.round(share * width)).padEnd(width, '·');
      process.stderr.write(`\r${title} ${bar} ${formatBytes(done)} of ${formatBytes(total)} `);
    },
    close() {
      process.stderr.write('\r\u001b[K');
    },
  };
}
