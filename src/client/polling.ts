import { RefusedError, UnavailableError } from '../errors.ts';
import { type Clock, sleep } from '../transport/clock.ts';
import { MAX_FRUITLESS, type NoticeMessage, type Notices, noticesFrom } from '../transport/notices.ts';
import type { RunStatus } from '../wire/cambium.ts';

/** What an answer must tell for notices to be made of it. */
interface Polled {
  readonly runStatus: RunStatus;
  readonly runNumber: number;
  readonly round: number | null;
  readonly aggregationId: string | null;
}

/**
 * Notices made of answers that are asked for again and again: the last resort, where a line carries nothing that takes
 * longer than an answer. Of several aggregations between two looks only the newest is told.
 *
 * @param ask asks how the run stands, with retries of its own
 */
export function pollingNotices(
  ask: (signal: AbortSignal) => Promise<Polled>,
  clock: Clock,
  intervalMs: number,
): Notices {
  return noticesFrom(async function* poll(signal, _, { reconnect, onReconnect }) {
    let runStatus: RunStatus | undefined;
    let runNumber = 0;
    let aggregationId: string | null = null;
    for (let fruitless = 0; ; await sleep(clock, intervalMs, signal)) {
      let now: Polled;
      try {
        now = await ask(signal);
        fruitless = 0;
      } catch (error) {
        const isServerFault = error instanceof RefusedError && error.status >= 500;
        if (!(error instanceof UnavailableError) && !isServerFault) throw error;
        if (++fruitless >= (reconnect?.attempts ?? MAX_FRUITLESS)) throw error;
        onReconnect?.({ attempt: fruitless, error });
        continue;
      }
      const run = now.runNumber;
      if (now.runStatus !== runStatus || now.runNumber !== runNumber) {
        ({ runStatus, runNumber } = now);
        // Without the round: that one is open does not say that the one before was given up.
        yield message('run_status', { body: { run_status: runStatus }, run });
      }
      if (now.aggregationId !== null && now.aggregationId !== aggregationId) {
        ({ aggregationId } = now);
        const body = { aggregation_id: aggregationId };
        yield message('aggregation_status', { body, ...body, run, round: now.round ?? 0 });
      }
    }
  });
}

function message(type: string, members: object): NoticeMessage {
  return { id: null, type, data: JSON.stringify({ message_type: type, ...members }) };
}
