/** What a long-running command says: a line for each thing that happened, JSON for machines, and on a terminal what it is at. */
import { printJson, printLine } from './output.ts';

const ERASE = '\r\u001b[K';

export class EventReport<E extends { readonly event: string }> {
  readonly #json: boolean;
  readonly #sentenceOf: (event: E) => string;
  readonly #isState: (event: E) => boolean;
  /** A line that is written over, each second, on a terminal. */
  readonly #hasStatus: boolean;
  #status: { readonly text: string; readonly since: number } | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** @param isState whether an event says what goes on from now, not what has happened */
  constructor(json: boolean, sentenceOf: (event: E) => string, isState: (event: E) => boolean) {
    this.#json = json;
    this.#sentenceOf = sentenceOf;
    this.#isState = isState;
    this.#hasStatus = !json && process.stderr.isTTY === true;
  }

  tell(event: E): void {
    const sentence = this.#sentenceOf(event);
    if (this.#json) printJson({ ...event, at: new Date().toISOString() });
    else if (this.#isState(event) && this.#hasStatus) this.#show(sentence);
    else {
      this.#show(undefined);
      printLine(sentence);
    }
  }

  /** A line of another program's. */
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
