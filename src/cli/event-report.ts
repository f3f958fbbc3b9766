/** What a long-running command says: a line for each thing that happened, JSON for machines, and on a terminal what it is at. */
import { printJson, printLine } from './output.ts';

const ERASE = '\r\u001b[K';

/** Where the line goes: stderr, or what a test has in its place. */
export interface StatusStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string | Uint8Array): unknown;
}

const LINE_END = 0x0a;

export class EventReport<E extends { readonly event: string }> {
  readonly #json: boolean;
  readonly #sentenceOf: (event: E) => string;
  readonly #stateOf: (event: E) => string | undefined;
  readonly #stderr: StatusStream;
  readonly #print: (line: string) => void;
  /** Whether there is a line that is written over, each second: on a terminal. */
  readonly hasStatus: boolean;
  /** What was told to go on, until something happened. */
  #state: string | undefined;
  /** Another program has begun a line, which stands where ours would. */
  #isMidLine = false;
  #status: { readonly text: string; readonly since: number } | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** @param stateOf what an event says that goes on from now; undefined where it says what has happened */
  constructor(
    json: boolean,
    sentenceOf: (event: E) => string,
    stateOf: (event: E) => string | undefined,
    stderr: StatusStream = process.stderr,
    print: (line: string) => void = printLine,
  ) {
    this.#json = json;
    this.#sentenceOf = sentenceOf;
    this.#stateOf = stateOf;
    this.#stderr = stderr;
    this.#print = print;
    this.hasStatus = !json && stderr.isTTY === true;
  }

  tell(event: E): void {
    if (this.#json) {
      printJson({ ...event, at: new Date().toISOString() });
      return;
    }
    const sentence = this.#sentenceOf(event);
    const state = this.#stateOf(event);
    const isOld = state !== undefined && state === this.#state;
    this.#state = state;
    if (state !== undefined && this.hasStatus) this.#show(sentence, isOld ? this.#status?.since : undefined);
    // A log has it once.
    else if (!isOld) {
      this.#show(undefined);
      this.#print(sentence);
    }
  }

  /** Lines of another program's. */
  pass(lines: readonly string[]): void {
    if (lines.length > 0) this.forward(new TextEncoder().encode(`${lines.join('\n')}\n`));
  }

  /** What another program writes on stderr, as it comes: our line makes way until it has ended its own. */
  forward(bytes: Uint8Array): void {
    if (this.hasStatus && !this.#isMidLine) this.#stderr.write(ERASE);
    this.#stderr.write(bytes);
    this.#isMidLine = bytes.at(-1) !== LINE_END;
    this.#draw();
  }

  close(): void {
    this.#show(undefined);
  }

  #show(text: string | undefined, since = Date.now()): void {
    if (!this.hasStatus) return;
    clearInterval(this.#timer);
    this.#status = text === undefined ? undefined : { text, since };
    if (this.#status !== undefined) this.#timer = setInterval(() => this.#draw(), 1000).unref();
    if (this.#isMidLine) this.#stderr.write('\n');
    this.#isMidLine = false;
    this.#stderr.write(ERASE);
    this.#draw();
  }

  #draw(): void {
    if (this.#status === undefined || this.#isMidLine) return;
    const { text, since } = this.#status;
    const seconds = Math.floor((Date.now() - since) / 1000);
    const width = (this.#stderr.columns || 80) - 1;
    this.#stderr.write(`${ERASE}${`${text} · ${seconds} s`.slice(0, width)}`);
  }
}
