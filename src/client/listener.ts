import { isCambiumError, UnavailableError } from '../errors.ts';
import { eventNotices } from '../transport/events.ts';
import type { NoticeStream, Notices } from '../transport/notices.ts';
import { paths } from '../wire/cambium.ts';
import { readNotice } from './answers.ts';
import type { Emitter } from './client-events.ts';
import type { ClientNoticesOptions } from './options.ts';
import { pollingNotices } from './polling.ts';
import type { NoticeQueue } from './queue.ts';
import type { Session } from './session.ts';

interface ListenerOptions extends ClientNoticesOptions {
  readonly pollIntervalMs: number;
}

/** What hears of it when notices tell something. */
interface Hearers {
  readonly queue: NoticeQueue;
  readonly events: Emitter;
  /** The server has been heard. */
  readonly onHeard: () => void;
  readonly onRun: () => void;
}

/** Reads the notices of a leaf, whatever carries them, and hands on what they tell. */
export class Listener {
  readonly #session: Session;
  readonly #options: ListenerOptions;
  readonly #hearers: Hearers;
  #reading: { readonly stream: NoticeStream; readonly ended: Promise<void> } | undefined;
  #isClosed = false;
  /** The carrier that was made for this session. */
  #made: Notices | undefined;
  #isWithoutEvents = false;
  #lastNoticeId: string | null = null;
  #lastAggregationId: string | null = null;

  constructor(session: Session, options: ListenerOptions, hearers: Hearers) {
    this.#session = session;
    this.#options = options;
    this.#hearers = hearers;
  }

  /** Begins to read unless that is going on. */
  listen(): void {
    if (this.#reading !== undefined || this.#isClosed) return;
    const stream = this.#carrier().open({
      after: this.#lastNoticeId,
      reconnect: this.#options.reconnect,
      onReconnect: (attempt) => this.#hearers.events.emit('reconnect', attempt),
    });
    this.#reading = { stream, ended: this.#read(stream) };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#reading?.stream.close();
    await this.#reading?.ended;
  }

  /** What brings the notices. */
  #carrier(): Notices {
    const { carrier, pollIntervalMs } = this.#options;
    const session = this.#session;
    if (typeof carrier === 'object') return carrier;
    if (typeof carrier === 'function') {
      this.#made ??= carrier({
        identity: () => session.state.identity,
        renew: (signal) => session.identify(signal),
        warn: (code, message) => this.#hearers.events.emit('warning', { code, message }),
      });
      return this.#made;
    }
    const { leafId, generation } = session.state.identity;
    const isOurs = generation === 'cambium';
    if (carrier === 'events' && !isOurs) throw new TypeError(`the ${generation} generation has no events`);
    if (isOurs && carrier !== 'polling' && !this.#isWithoutEvents) {
      return eventNotices(session.http, paths.notices(leafId));
    }
    return pollingNotices((signal) => session.askRun(signal), session.http.clock, pollIntervalMs);
  }

  /** Never rejects: an error goes to who waits for a notice; who waits later makes a new connection. */
  async #read(stream: NoticeStream): Promise<void> {
    const { queue, events, onHeard } = this.#hearers;
    let end: unknown = new UnavailableError('unavailable-notices', 'the server sends no more notices');
    try {
      for await (const { id, data } of stream) {
        onHeard();
        try {
          this.#take(data);
        } catch (error) {
          // One bad notice must not be the end of all the good ones after it.
          if (isCambiumError(error)) {
            events.emit('warning', { code: 'notice-invalid', message: error.message });
          }
          queue.fail(error);
        }
        this.#lastNoticeId = id ?? this.#lastNoticeId;
      }
    } catch (error) {
      this.#session.learn(error);
      end = error;
      // Something between us and the server keeps streams back: from the next time on they are not asked for.
      const isKeptBack = isCambiumError(error) && error.code === 'protocol-not-events';
      if (isKeptBack && this.#options.carrier === undefined) this.#isWithoutEvents = true;
    }
    // First this, then those who wait: they may come back at once.
    this.#reading = undefined;
    queue.fail(end);
  }

  #take(data: string): void {
    const notice = readNotice(data);
    if (notice?.message_type === 'run_status') {
      // Only our servers tell numbers with it.
      const { run = this.#session.state.runNumber ?? 0, given_up_round: round } = notice;
      this.#session.setRun(notice.body.run_status, run);
      this.#hearers.onRun();
      if (round !== undefined) this.#hearers.events.emit('roundGivenUp', { runNumber: run, round });
    } else if (notice?.message_type === 'aggregation_status') {
      const id = notice.body.aggregation_id;
      // Delivered at least once: a reconnection may repeat the last one.
      if (id === this.#lastAggregationId) return;
      this.#lastAggregationId = id;
      this.#hearers.queue.put(id);
      this.#hearers.events.emit('aggregation', { aggregationId: id });
    }
  }
}
