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
  readonly givenUpRound: number | null;
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
    let givenUpRound: number | null = null;
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
      const place = { run: now.runNumber, round: now.round ?? 0 };
      const isOtherRun = now.runNumber !== runNumber;
      const isOfRound = now.givenUpRound !== null && (now.givenUpRound !== givenUpRound || isOtherRun);
      if (now.runStatus !== runStatus || isOtherRun || isOfRound) {
        ({ runStatus, runNumber } = now);
        const body = { run_status: runStatus };
        yield message('run_status', {
          body,
          ...place,
          ...(isOfRound && { given_up_round: now.givenUpRound }),
        });
      }
      ({ givenUpRound } = now);
      if (now.aggregationId !== null && now.aggregationId !== aggregationId) {
        ({ aggregationId } = now);
        const body = { aggregation_id: aggregationId };
        yield message('aggregation_status', { body, ...body, ...place });
      }
    }
  });
}

function message(type: string, members: object): NoticeMessage {
  return { id: null, type, data: JSON.stringify({ message_type: type, ...members }) };
}
