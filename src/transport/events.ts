import { type CambiumError, ProtocolError, UnavailableError } from '../errors.ts';
import { sleep } from './clock.ts';
import { EventParser } from './event-parser.ts';
import type { Http } from './http.ts';
import {
  MAX_FRUITLESS,
  type NoticeMessage,
  type Notices,
  noticesFrom,
  type Reconnecting,
} from './notices.ts';
import { backoffMs, TransientFailure } from './retry.ts';

/** The server sends a comment every 15 s; after three that are missing, the connection is dead whatever TCP thinks. */
export const SILENCE_MS = 45_000;

/** A server may ask for a pause before reconnecting, but not for ever. */
const MAX_PAUSE_MS = 60_000;

/**
 * Notices by server-sent events, read with fetch, because EventSource sends no credentials and hides why it failed.
 * A broken or silent connection is opened again after the last complete event.
 */
export function eventNotices(http: Http, target: string): Notices {
  return noticesFrom((signal, after, reconnecting) =>
    readWithReconnects(http, target, after ?? '', signal, reconnecting),
  );
}

async function* readWithReconnects(
  http: Http,
  target: string,
  after: string,
  signal: AbortSignal,
  { reconnect = {}, onReconnect }: Reconnecting,
): AsyncGenerator<NoticeMessage, void, void> {
  const { attempts = MAX_FRUITLESS, baseMs = http.policy.baseMs, maxMs = http.policy.maxMs } = reconnect;
  const policy = { ...http.policy, baseMs, maxMs };
  let lastEventId = after;
  let retryMs: number | undefined;
  let failure: CambiumError | undefined;
  for (let fruitless = 0; fruitless < attempts; ) {
    const parser = new EventParser(lastEventId);
    let pauseMs: number | undefined;
    try {
      const answer = await http.open({
        method: 'GET',
        target,
        headers: { accept: 'text/event-stream', ...(lastEventId !== '' && { 'last-event-id': lastEventId }) },
        signal,
        timeouts: { idleMs: SILENCE_MS },
      });
      try {
        // The server has nothing more to say, ever: so the HTML standard defines it.
        if (answer.status === 204) return;
        requireEvents(answer.headers.get('content-type'), answer.where);
        for await (const chunk of answer.chunks()) {
          fruitless = 0;
          for (const event of parser.push(chunk)) {
            yield { id: parser.lastEventId === '' ? null : parser.lastEventId, ...event };
          }
        }
      } finally {
        answer.close();
      }
      failure = new UnavailableError('unavailable-server', `${answer.where}: the server ended the stream`);
    } catch (error) {
      if (!(error instanceof TransientFailure)) throw error;
      failure = error.failure;
      pauseMs = error.retryAfterMs;
    }
    lastEventId = parser.lastEventId;
    retryMs = parser.retryMs ?? retryMs;
    fruitless++;
    // The server may ask for longer pauses than ours, not for shorter ones.
    const pause = Math.max(pauseMs ?? retryMs ?? 0, backoffMs(policy, fruitless));
    onReconnect?.({ attempt: fruitless, error: failure });
    await sleep(http.clock, Math.min(pause, MAX_PAUSE_MS), signal);
  }
  throw failure ?? new UnavailableError('unavailable-server', `no connection for ${target}`);
}

function requireEvents(contentType: string | null, where: string): void {
  if (contentType !== null && /^text\/event-stream\s*(;|$)/i.test(contentType)) return;
  throw new ProtocolError(
    'protocol-not-events',
    `${where}: answered with ${contentType ?? 'no content type'} instead of an event stream; is there a log-in page in between?`,
  );
}
