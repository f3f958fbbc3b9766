/**
 * Server-sent events: notices for leaves, rounds for operators. A stream ends when its reader goes, when the server
 * closes, and when a leaf's token is taken back.
 */
import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { linkSignals } from '../../transport/signals.ts';
import { API_PREFIX } from '../../wire/cambium.ts';
import { isRevoked, type Leaf } from '../domain/leaves.ts';
import { NOTICE_PAGE, type NumberedNotice, noticesAfter, presentNotices } from '../domain/notices.ts';
import { Refusal } from '../domain/refusal.ts';
import { getRound, listRounds } from '../domain/round-view.ts';
import type { Topic } from '../domain/signals.ts';
import { lockBranch, rootOf } from '../domain/trees.ts';
import type { RouteContext } from './context.ts';
import { leafOfPath, operatorOf, pathId } from './credentials.ts';

/** A comment goes out after so long a silence, well before readers and proxies give up. */
const COMMENT_MS = 15_000;

export function eventRoutes(app: FastifyInstance, context: RouteContext): void {
  app.get(`${API_PREFIX}/leaves/:id/notices`, async (request, reply) => {
    const leaf = await leafOfPath(context.domain.db, request);
    const last = lastEventId(request);
    return sendEvents(context, reply, (gone) => notices(context, leaf, last, gone));
  });

  app.get(`${API_PREFIX}/branches/:id/watch`, async (request, reply) => {
    await operatorOf(context.domain.db, request);
    const branchId = pathId(request, 'branch');
    const root = await rootOf(context.domain.db, await lockBranch(context.domain.db, branchId));
    return sendEvents(context, reply, (gone) => rounds(context, root.id, gone));
  });
}

/** All notices after `last`; without it what a new reader must know, then what comes. */
async function* notices(
  context: RouteContext,
  leaf: Leaf,
  last: number | undefined,
  gone: AbortSignal,
): AsyncGenerator<string> {
  const { db, signals } = context.domain;
  const bell = new Bell(context, `notices:${leaf.branch_id}`, signals, gone);
  const event = ({ number, data }: NumberedNotice) =>
    `id: ${number}\nevent: ${data.message_type}\ndata: ${JSON.stringify(data)}\n\n`;
  try {
    yield ':\n\n'; // headers go out with the first bytes
    const { notice_number } = await lockBranch(db, leaf.branch_id);
    let number = last ?? 0;
    if (last === undefined || last > notice_number) {
      for (const notice of await presentNotices(db, leaf.branch_id)) {
        yield event(notice);
        number = notice.number;
      }
    }
    while (!gone.aborted && !(await isRevoked(db, leaf.id))) {
      const next = await noticesAfter(db, leaf.branch_id, number);
      for (const notice of next) {
        yield event(notice);
        number = notice.number;
      }
      if (next.length < NOTICE_PAGE && !(await bell.rings(COMMENT_MS))) yield ':\n\n';
    }
  } finally {
    bell.close();
  }
}

/** The newest two rounds as they are, then each one that changes; changes in quick succession may become one. */
async function* rounds(context: RouteContext, branchId: string, gone: AbortSignal): AsyncGenerator<string> {
  const { db, signals } = context.domain;
  const bell = new Bell(context, `rounds:${branchId}`, signals, gone);
  const event = (round: object) => `event: round\ndata: ${JSON.stringify(round)}\n\n`;
  try {
    yield ':\n\n';
    for (const round of (await listRounds(db, branchId, { limit: 2 })).reverse()) yield event(round);
    while (!gone.aborted) {
      for (const id of bell.take()) yield event(await getRound(db, id));
      if (!(await bell.rings(COMMENT_MS))) yield ':\n\n';
    }
  } finally {
    bell.close();
  }
}

/** Waits for a signal without missing one that came while its owner was busy. */
class Bell {
  readonly #timers: RouteContext['timers'];
  readonly #off: () => void;
  readonly #gone: AbortSignal;
  #abouts = new Set<string>();
  #hasRung = false;
  #wake: () => void = () => {};

  constructor(
    context: RouteContext,
    topic: Topic,
    signals: RouteContext['domain']['signals'],
    gone: AbortSignal,
  ) {
    this.#timers = context.timers;
    this.#gone = gone;
    this.#off = signals.on(topic, (about) => {
      this.#abouts.add(about);
      this.#ring();
    });
    gone.addEventListener('abort', this.#ring);
  }

  /** What the signals since the last call were about. */
  take(): Iterable<string> {
    const taken = this.#abouts;
    this.#abouts = new Set();
    return taken;
  }

  /** True when a signal came since the last call, or comes within `ms`, or the reader is gone. */
  async rings(ms: number): Promise<boolean> {
    if (!this.#hasRung) {
      await new Promise<void>((resolve) => {
        const cancel = this.#timers.after(ms, resolve);
        this.#wake = () => {
          cancel();
          resolve();
        };
      });
    }
    const hasRung = this.#hasRung;
    this.#hasRung = false;
    return hasRung;
  }

  close(): void {
    this.#off();
    this.#gone.removeEventListener('abort', this.#ring);
  }

  readonly #ring = () => {
    this.#hasRung = true;
    this.#wake();
  };
}

function sendEvents(
  context: RouteContext,
  reply: FastifyReply,
  open: (gone: AbortSignal) => AsyncGenerator<string>,
): FastifyReply {
  const gone = linkSignals(context.closing);
  reply.raw.once('close', () => {
    gone.unlink();
    gone.abort();
  });
  const events = open(gone.signal);
  return reply
    .header('content-type', 'text/event-stream; charset=utf-8')
    .header('cache-control', 'no-store, no-transform')
    .header('x-accel-buffering', 'no')
    .send(Readable.from(events, { objectMode: false }));
}

function lastEventId(request: FastifyRequest): number | undefined {
  const header = request.headers['last-event-id'];
  if (header === undefined || header === '') return undefined;
  if (typeof header !== 'string' || !/^\d{1,15}$/.test(header)) {
    throw new Refusal('malformed', 'last-event-id-invalid', 'Last-Event-ID is the number of a notice');
  }
  return Number(header);
}
