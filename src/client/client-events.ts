import type { CambiumError } from '../errors.ts';
import type { Reconnection } from '../transport/notices.ts';
import type { Retry } from '../transport/retry.ts';
import type { RunStatus } from '../wire/cambium.ts';
import type { Generation } from './dialect.ts';
import type { TransferProgress } from './options.ts';

/** What a client tells of, by the name to be given to `on`. */
export interface ClientEvents {
  /** The run of the branch changed, or was heard of for the first time. */
  readonly run: { readonly runStatus: RunStatus; readonly runNumber: number };
  /** Our servers: no aggregation will come of this round, so that nobody waits for one. May be told more than once. */
  readonly roundGivenUp: { readonly runNumber: number; readonly round: number };
  /** A new aggregation was announced; its id is in the queue too. */
  readonly aggregation: { readonly aggregationId: string };
  /** The server accepted the token; `isRenewal` says that it had done so before. */
  readonly session: {
    readonly leafId: string;
    readonly generation: Generation;
    readonly isRenewal: boolean;
  };
  /** A call failed and is tried again. */
  readonly retry: Retry;
  /** The connection that brings the notices broke and is opened again. */
  readonly reconnect: Reconnection;
  /**
   * The circuit across calls: `open`, no call is let through until the pause is over; `half-open`, one is let through to
   * see; `closed`, the server is back.
   */
  readonly circuit: {
    readonly state: 'open' | 'half-open' | 'closed';
    readonly error: CambiumError | undefined;
  };
  /** How far an upload is. */
  readonly upload: TransferProgress & { readonly name: string };
  /** How far a download is. */
  readonly download: TransferProgress & { readonly aggregationId: string };
  /** Something is amiss, and work goes on. Codes: `clock-off`, `broker`, `notice-invalid`. */
  readonly warning: { readonly code: string; readonly message: string };
  /** The client was closed. */
  readonly close: Readonly<Record<never, never>>;
}

export type ClientEventName = keyof ClientEvents;

export type ClientListener<K extends ClientEventName> = (event: ClientEvents[K]) => void;

/** Hands events to listeners, in the order in which these came. */
export class Emitter {
  readonly #listeners = new Map<ClientEventName, Set<(event: never) => void>>();

  /** @returns takes the listener away again */
  on<K extends ClientEventName>(name: K, listener: ClientListener<K>): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners);
    // Wrapped, so that each registration is one of its own.
    const entry = (event: ClientEvents[K]) => listener(event);
    listeners.add(entry);
    return () => listeners.delete(entry);
  }

  /** What a listener throws is a defect of the program and surfaces there; it does not end what the client is at. */
  emit<K extends ClientEventName>(name: K, event: ClientEvents[K]): void {
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        (listener as ClientListener<K>)(event); // it was added under this name
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
