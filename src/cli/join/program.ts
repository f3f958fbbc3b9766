/** The user's program: started once for each round, told by words and environment where its files are. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import { CambiumError } from '../../errors.ts';
import { linkSignals } from '../../transport/signals.ts';
import { UsageError } from '../exit.ts';
import { MAX_LINE } from './metrics.ts';

/** After this a program that was asked to end is killed. */
const GRACE_MS = 10_000;

/** What a program has said is waited for so long after its end; a process that left its group may hold the pipe for ever. */
const LAST_WORDS_MS = 1_000;

/** A program that does not exist or may not be run: no further try would mend that. */
export const PROGRAM_MISSING = 'program-missing';

/** What the program is told, as `{name}` in its words and as `CAMBIUM_NAME` in its environment. */
export interface ProgramFacts {
  /** Path of the global model. There is no such file in the first round of a run without one. */
  readonly global: string;
  /** Where the program writes its update. */
  readonly update: string;
  /** Where it may write its metrics, as JSON. */
  readonly metrics: string;
  /** Number of the round; 0 where the server tells none. */
  readonly round: number;
  /** Number of the run. */
  readonly run: number;
}

const FACTS: ReadonlySet<string> = new Set<keyof ProgramFacts>([
  'global',
  'update',
  'metrics',
  'round',
  'run',
]);

/** `{name}`, or `{{name}}` for these words in braces; what stands behind a dollar sign is a shell's, other braces the program's. */
const PLACEHOLDER = /(?<!\$)(?:\{\{([a-z]\w*)\}\}|\{([a-z]\w*)\})/gi;

/** Looks for placeholders that there are none of. Throws UsageError. */
export function checkPlaceholders(words: readonly string[]): void {
  for (const word of words) {
    for (const [found, , name] of word.matchAll(PLACEHOLDER)) {
      if (name === undefined || FACTS.has(name)) continue;
      const known = [...FACTS].map((fact) => `{${fact}}`).join(', ');
      throw new UsageError(`${found}: there are ${known}; for the program's own braces write {${found}}`);
    }
  }
}

export interface ProgramOptions {
  readonly signal: AbortSignal;
  /** How long it may take. Without, as long as it likes. */
  readonly timeoutMs?: number | undefined;
  /** Lines of its stdout, as they come. */
  readonly onLines: (lines: readonly string[]) => void;
  /** What it writes on stderr, as it comes. Without, it has ours. */
  readonly onError?: ((bytes: Uint8Array) => void) | undefined;
}

/**
 * Runs the program and waits for its end. Whatever ends the wait, the program is gone afterwards, with the processes that
 * it has started.
 *
 * @param words program and arguments, past `checkPlaceholders`; no shell reads them
 * @throws CambiumError `program-missing`, `program-exit`, `program-timeout`; the reason of the signal
 */
export async function runProgram(
  words: readonly string[],
  facts: ProgramFacts,
  { signal, timeoutMs, onLines, onError }: ProgramOptions,
): Promise<void> {
  signal.throwIfAborted();
  const [program = '', ...args] = words.map((word) => fill(word, facts));
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', onError ? 'pipe' : 'inherit'],
    env: { ...process.env, ...environmentOf(facts) },
    // A group of its own: what it starts can be ended with it, and Ctrl-C reaches it through us alone.
    detached: process.platform !== 'win32',
  });
  // However this process ends, by a second Ctrl-C or because nobody reads it: the program must not train on for nobody.
  const onExit = () => kill(child, 'SIGKILL');
  process.once('exit', onExit);
  const stop = linkSignals(signal);
  let isTooLate = false;
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          isTooLate = true;
          stop.abort();
        }, timeoutMs);
  let killer: NodeJS.Timeout | undefined;
  const onStop = () => {
    kill(child, 'SIGTERM');
    killer = setTimeout(() => kill(child, 'SIGKILL'), GRACE_MS);
  };
  stop.signal.addEventListener('abort', onStop, { once: true });
  try {
    const { stdout, stderr } = child;
    const finish = readLines(stdout!, onLines); // a pipe
    if (onError) stderr?.on('data', onError);
    const saidAll = Promise.all([once(stdout!, 'close'), stderr === null || once(stderr, 'close')]);
    const { code, by } = await ended(child, program);
    // What it has left running would hold files and memory that the next round needs.
    kill(child, 'SIGKILL');
    await Promise.race([saidAll, pause(LAST_WORDS_MS, undefined, { ref: false })]);
    finish();
    stderr?.destroy();
    signal.throwIfAborted();
    if (isTooLate) {
      throw new CambiumError(
        'program-timeout',
        `${program}: it did not end within ${timeoutMs! / 1000} s (--timeout)`,
      );
    }
    if (code !== 0) {
      throw new CambiumError(
        'program-exit',
        `${program}: it ended with ${by ? `signal ${by}` : `code ${code}`}`,
      );
    }
  } finally {
    clearTimeout(timer);
    clearTimeout(killer);
    stop.signal.removeEventListener('abort', onStop);
    stop.unlink();
    process.off('exit', onExit);
  }
}

/** Replaces `{global}` and its like, also within a word. */
function fill(word: string, facts: ProgramFacts): string {
  return word.replace(PLACEHOLDER, (_, literal: string | undefined, name: keyof ProgramFacts) =>
    literal === undefined ? String(facts[name]) : `{${literal}}`,
  );
}

/** Tells the lines of a stream as they come. @returns ends that, with the line that has no end yet */
function readLines(stream: Readable, onLines: (lines: readonly string[]) => void): () => void {
  let rest = '';
  stream.setEncoding('utf8').on('data', (text: string) => {
    // A CR at the very end may have its LF in the next piece.
    const lines = `${rest}${text}`.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? '';
    if (rest.length > MAX_LINE) {
      lines.push(rest);
      rest = '';
    }
    onLines(lines);
  });
  return () => {
    stream.removeAllListeners('data').destroy();
    if (rest !== '') onLines([rest.replace(/\r$/, '')]);
  };
}

function environmentOf(facts: ProgramFacts): Record<string, string> {
  return Object.fromEntries(
    Object.entries(facts).map(([name, value]) => [`CAMBIUM_${name.toUpperCase()}`, String(value)]),
  );
}

function ended(
  child: ChildProcess,
  program: string,
): Promise<{ readonly code: number | null; readonly by: NodeJS.Signals | null }> {
  return new Promise((resolve, reject) => {
    child.once('error', (cause) => {
      if (child.pid !== undefined) return; // a signal that came too late
      const message = `${program}: it cannot be started (${(cause as NodeJS.ErrnoException).code})`;
      reject(new CambiumError(PROGRAM_MISSING, message, { cause }));
    });
    child.once('exit', (code, by) => resolve({ code, by }));
  });
}

function kill({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(process.platform === 'win32' ? pid : -pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error; // it has ended
  }
}
