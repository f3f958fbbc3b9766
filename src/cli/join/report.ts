/** What `cambium join` says: a line for each thing that happened, JSON for machines, and on a terminal what it is at. */
import { formatBytes, printJson, printLine } from '../output.ts';

export type JoinEvent =
  | {
      readonly event: 'joined';
      readonly leaf: string;
      readonly branch: string | null;
      readonly folder: string;
    }
  | { readonly event: 'waiting'; readonly for: 'run' | 'aggregation' | 'server'; readonly reason?: string }
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

const ERASE = '\r\u001b[K';

export class JoinReport {
  readonly #json: boolean;
  /** A line that is written over, each second, on a terminal. */
  readonly #hasStatus: boolean;
  #status: { readonly text: string; readonly since: number } | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(json: boolean) {
    this.#json = json;
    this.#hasStatus = !json && process.stderr.isTTY === true;
  }

  tell(event: JoinEvent): void {
    const sentence = sentenceOf(event);
    const isState = event.event === 'waiting' || event.event === 'training';
    if (this.#json) printJson({ ...event, at: new Date().toISOString() });
    else if (isState && this.#hasStatus) this.#show(sentence);
    else {
      this.#show(undefined);
      printLine(sentence);
    }
  }

  /** A line of the program's. */
  pass(line: string): void {
    if (this.#hasStatus) process.stderr.write(ERASE);
    process.stderr.write(`${line}\n`);
    this.#draw();
  }

  close(): void {
    this.#show(undefined);
  }

  #show(text: string | undefined): void {
    if (!this.#hasStatus) return;
    clearInterval(this.#timer);
    this.#status = text === undefined ? undefined : { text, since: Date.now() };
    if (this.#status !== undefined) this.#timer = setInterval(() => this.#draw(), 1000).unref();
    process.stderr.write(ERASE);
    this.#draw();
  }

  #draw(): void {
    if (this.#status === undefined) return;
    const { text, since } = this.#status;
    const seconds = Math.floor((Date.now() - since) / 1000);
    const width = (process.stderr.columns ?? 80) - 1;
    process.stderr.write(`${ERASE}${`${text} · ${seconds} s`.slice(0, width)}`);
  }
}

function sentenceOf(event: JoinEvent): string {
  switch (event.event) {
    case 'joined':
      return `joined as leaf ${event.leaf} of branch ${event.branch}, files in ${event.folder}`;
    case 'waiting':
      return `waiting for the ${event.for}${event.reason === undefined ? '' : `: ${event.reason}`}`;
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
      return `done: ${event.rounds} rounds`;
  }
}

function placed({ run, round }: { readonly run: number; readonly round: number | null }): string {
  return round === null ? `run ${run}` : `run ${run}, round ${round}`;
}
