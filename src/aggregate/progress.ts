/** How far a work is, in bytes of what it writes. */
export interface Progress {
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** A message to another thread costs more than a block: progress is told at most this often. */
const INTERVAL_MS = 50;

/** Tells some of the progress: what comes soon after the last is left out, but never the end. */
export function sparingly(tell: (progress: Progress) => void): (progress: Progress) => void {
  let last = 0;
  return (progress) => {
    const now = performance.now();
    if (now - last < INTERVAL_MS && progress.bytesDone < progress.bytesTotal) return;
    last = now;
    tell(progress);
  };
}
