/** What is worth waiting for, and for how long. */
import { ProtocolError, RefusedError, UnavailableError } from '../errors.ts';

/** Longest pause between attempts. */
const LONGEST_MS = 60_000;

/** Doubles from pause to pause, half of it by chance. @param attempt from 1 */
export function pauseMs(firstMs: number, attempt: number): number {
  const bound = Math.min(LONGEST_MS, firstMs * 2 ** (attempt - 1));
  return bound / 2 + (bound / 2) * Math.random();
}

/** Whether time may mend it: a server that is away or in trouble, a log-in page in between. */
export function passes(error: unknown): boolean {
  if (error instanceof UnavailableError) {
    return error.code !== 'unavailable-package' && error.code !== 'unavailable-tls';
  }
  if (error instanceof RefusedError) return error.status >= 500 || error.status === 429;
  return error instanceof ProtocolError;
}
