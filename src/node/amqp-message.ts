/** What the messages in a leaf's queue say, in the forms of all generations. */
import type { NoticeMessage } from '../transport/notices.ts';

/** A longer text is no notice. */
const MAX_NOTICE_BYTES = 1 << 16;

/** What an id of an aggregation is made of, where it comes as plain text. */
const PLAIN_ID = /^[\x21-\x7e]{1,200}$/;

export interface ReadNotice {
  readonly message: NoticeMessage;
  /** By which a repetition is known; undefined where repetitions do no harm. */
  readonly key: string | undefined;
}

/** What a message says; or, as a text, why it is none. */
export function readMessage(content: Uint8Array, isPlain: boolean): ReadNotice | string {
  if (content.byteLength > MAX_NOTICE_BYTES) return `${content.byteLength} bytes are no notice`;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(content);
  } catch {
    return 'it is not UTF-8';
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Nothing of the text is shown: it was not made for us.
    return isPlain && PLAIN_ID.test(text) ? aggregation(text) : 'it is no JSON';
  }
  if (typeof value !== 'object' || value === null) {
    return isPlain && PLAIN_ID.test(text) ? aggregation(text) : 'it is no object';
  }
  const { message_type: type, body, aggregation_id: id } = value as Record<string, unknown>;
  // Up to 2.1 a message has no type.
  if (type === undefined && typeof id === 'string') return aggregation(id);
  if (typeof type !== 'string') return 'it has no message_type';
  const message = { id: null, type, data: text };
  if (type !== 'aggregation_status' && type !== 'run_status') return { message, key: undefined };
  if (typeof body !== 'object' || body === null) return `its ${type} has no body`;
  const { aggregation_id: inside, run_status: status } = body as Record<string, unknown>;
  const told = type === 'run_status' ? status : inside;
  if (typeof told !== 'string' || told === '') return `its ${type} tells none`;
  return { message, key: type === 'run_status' ? undefined : told };
}

function aggregation(id: string): ReadNotice {
  const data = { message_type: 'aggregation_status', body: { aggregation_id: id }, aggregation_id: id };
  return { message: { id: null, type: data.message_type, data: JSON.stringify(data) }, key: id };
}
