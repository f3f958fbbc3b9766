/**
 * Server-sent events, as the HTML standard defines them: UTF-8 lines ended by LF, CR or CRLF; `name: value` fields, one
 * space after the colon dropped; lines that begin with a colon are comments; an empty line completes an event. An event
 * without data is none. What stands after the last empty line when the stream ends is dropped.
 */
import { ProtocolError } from '../errors.ts';

/** Characters of one event, its fields together. Ours have some hundred; the limit keeps a hostile stream small. */
const MAX_EVENT_LENGTH = 1 << 20;

export interface ServerEvent {
  readonly type: string;
  readonly data: string;
}

export class EventParser {
  /** The id to resume after: that of the newest complete event which named one. Empty at first. */
  lastEventId = '';
  /** The pause before reconnecting that the server asked for, in milliseconds. */
  retryMs: number | undefined;

  readonly #decoder = new TextDecoder();
  /** The unfinished line. */
  #line = '';
  /** The last line ended in CR at the very end of a chunk, so an LF that comes next belongs to it. */
  #afterCr = false;
  #type = '';
  #data: string[] = [];
  #id: string;
  #length = 0;

  /** @param lastEventId where the stream is resumed */
  constructor(lastEventId = '') {
    this.lastEventId = lastEventId;
    this.#id = lastEventId;
  }

  /** Takes the next bytes, cut anywhere, and gives the events that they complete. Throws ProtocolError. */
  *push(bytes: Uint8Array): Generator<ServerEvent, void, void> {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === '') return;
    if (this.#afterCr && text.startsWith('\n')) text = text.slice(1);
    this.#afterCr = text === '' ? false : text.endsWith('\r');
    let start = 0;
    for (const end of text.matchAll(/\r\n|\n|\r/g)) {
      const line = this.#line + text.slice(start, end.index);
      this.#line = '';
      start = end.index + end[0].length;
      this.#grow(line.length);
      if (line !== '') this.#field(line);
      else yield* this.#complete();
    }
    this.#line += text.slice(start);
    if (this.#length + this.#line.length > MAX_EVENT_LENGTH) this.#grow(this.#line.length);
  }

  #field(line: string): void {
    const colon = line.indexOf(':');
    if (colon === 0) {
      // A stream of nothing but comments is a stream that lives.
      this.#length -= line.length;
      return;
    }
    const name = colon < 0 ? line : line.slice(0, colon);
    const rest = colon < 0 ? '' : line.slice(colon + 1);
    const value = rest.startsWith(' ') ? rest.slice(1) : rest;
    if (name === 'data') this.#data.push(value);
    else if (name === 'event') this.#type = value;
    else if (name === 'id' && !value.includes('\0')) this.#id = value;
    else if (name === 'retry' && /^\d{1,9}$/.test(value)) this.retryMs = Number(value);
  }

  *#complete(): Generator<ServerEvent, void, void> {
    const event = { type: this.#type || 'message', data: this.#data.join('\n') };
    const isEvent = this.#data.length > 0;
    this.lastEventId = this.#id;
    this.#type = '';
    this.#data = [];
    this.#length = 0;
    if (isEvent) yield event;
  }

  #grow(length: number): void {
    this.#length += length;
    if (this.#length > MAX_EVENT_LENGTH) {
      throw new ProtocolError(
        'protocol-too-long',
        `an event of the server is longer than ${MAX_EVENT_LENGTH} characters`,
      );
    }
  }
}
