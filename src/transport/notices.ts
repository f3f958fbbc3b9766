import type { Retry } from './retry.ts';
import { linkSignals } from './signals.ts';

/**
 * How notices reach a client, whatever carries them: server-sent events here, AMQP in Node. A notice is still text; its
 * meaning belongs to the dialect.
 */
export interface NoticeMessage {
  /** The number under which the carrier can resume, null where it has none. */
  readonly id: string | null;
  readonly type: string;
  readonly data: string;
}

/**
 * Notices in the order in which they were sent, each at least once. Asking for the next one says that the one before
 * has been dealt with (where the carrier acknowledges, it does so then).
 *
 * Iteration ends normally after `close` and after `return` (a `break` in the loop); it throws what no further attempt
 * would mend, and the reason of the signal it was opened with.
 */
export interface NoticeStream extends AsyncIterable<NoticeMessage> {
  /** Ends the stream, also while a notice is waited for. Harmless when it has ended. */
  close(): void;
}

/** How a connection that broke is opened again: pauses grow like those of calls. */
export interface ReconnectOptions {
  /** Connections in a row that bring nothing, before whoever waits is told. Default 45: some minutes. */
  readonly attempts?: number | undefined;
  /** Upper bound of the first pause, in milliseconds. Default: that of calls. */
  readonly baseMs?: number | undefined;
  /** Upper bound of every pause, in milliseconds. Default: that of calls. */
  readonly maxMs?: number | undefined;
}

/** A connection that broke and is opened again: which in a row that brought nothing, from 1. */
export type Reconnection = Omit<Retry, 'delayMs'>;

/** Connections in a row that bring nothing, before a stream gives up. With the pauses, about ten minutes. */
export const MAX_FRUITLESS = 45;

/** How a stream comes back. */
export interface Reconnecting {
  readonly reconnect?: ReconnectOptions | undefined;
  /** Told of each connection that broke and is opened again. */
  readonly onReconnect?: ((attempt: Reconnection) => void) | undefined;
}

export interface NoticesOptions extends Reconnecting {
  /** Only notices after this id; without, the present state. */
  readonly after?: string | null | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A way to be told. */
export interface Notices {
  /** Connects at the first step of the iteration. A stream is iterated once. */
  open(options?: NoticesOptions): NoticeStream;
}

/**
 * Notices out of a generator: what the carriers share around theirs.
 *
 * @param read begins when the first notice is asked for. Its signal is aborted by the caller's and when the stream is closed or
 *   left; what it throws then is not heard, and of the caller's signal the reason is thrown
 */
export function noticesFrom(
  read: (
    signal: AbortSignal,
    after: string | null,
    reconnecting: Reconnecting,
  ) => AsyncGenerator<NoticeMessage, void, void>,
): Notices {
  return {
    open({ after = null, signal, ...reconnecting }: NoticesOptions = {}): NoticeStream {
      const link = linkSignals(signal);
      const close = () => {
        link.unlink();
        link.abort();
      };
      async function* guarded(): AsyncGenerator<NoticeMessage, void, void> {
        try {
          yield* read(link.signal, after, reconnecting);
        } catch (error) {
          signal?.throwIfAborted();
          if (!link.signal.aborted) throw error;
        } finally {
          close();
        }
      }
      const notices = guarded();
      return {
        [Symbol.asyncIterator]: () => ({
          next: () => notices.next(),
          return() {
            // A generator that waits hears `return` only after the wait.
            close();
            return notices.return();
          },
        }),
        close,
      };
    },
  };
}
