/**
 * Notices from a queue of RabbitMQ, under the contract that server-sent events fulfil. A message is acknowledged when the
 * next one is asked for, so what was in hand when a line broke comes again; what comes again of what was dealt with is
 * acknowledged unseen.
 */
import { type Notices, noticesFrom } from '../transport/notices.ts';
import { readMessage } from './amqp-message.ts';
import { type AmqpQueueOptions, QueueReader } from './amqp-reader.ts';

/** Aggregations that are remembered as dealt with. A queue of our server holds fewer than that. */
const MAX_REMEMBERED = 4096;

/**
 * Notices of a leaf's queue at a RabbitMQ. What was dealt with is remembered over all streams that are opened.
 *
 * The streams throw UnavailableError `unavailable-broker` when there has been no queue to read for some minutes and
 * `unavailable-tls` for a certificate that is not believed; and RefusedError of `renew`.
 */
export function amqpNotices(options: AmqpQueueOptions): Notices {
  const known = new Set<string>();
  return noticesFrom(async function* read(signal, _, reconnecting) {
    const reader = new QueueReader({ ...options, ...reconnecting }, signal);
    try {
      await reader.open();
      for (;;) {
        const delivery = await reader.next();
        const notice = readMessage(delivery.content, options.place().exchange !== undefined);
        if (typeof notice === 'string') {
          delivery.drop();
          reader.warn(`a message in the queue was dropped: ${notice}`);
          continue;
        }
        if (notice.key === undefined || !known.has(notice.key)) yield notice.message;
        remember(known, notice.key);
        delivery.acknowledge();
      }
    } finally {
      await reader.close();
    }
  });
}

function remember(known: Set<string>, key: string | undefined): void {
  if (key === undefined) return;
  known.delete(key);
  known.add(key);
  const [oldest] = known;
  if (known.size > MAX_REMEMBERED && oldest !== undefined) known.delete(oldest);
}
