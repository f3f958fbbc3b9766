// The frame of a contender in Node: reads the job, does a warm-up and the rounds, tells times and memory.
import { readFileSync, rmSync } from 'node:fs';

export const job = JSON.parse(readFileSync(process.argv.at(-1), 'utf8'));

/** @param work one round; what it needs first is ready before */
export async function contend(work) {
  const seconds = [];
  let cpu = process.cpuUsage();
  for (let round = 0; round <= job.rounds; round++) {
    // Into a new file: to replace one, some file systems stop for as long as a third of the work takes.
    rmSync(job.output, { force: true });
    const startedAt = performance.now();
    await work(job);
    if (round > 0) seconds.push((performance.now() - startedAt) / 1000);
    else cpu = process.cpuUsage();
  }
  const { user, system } = process.cpuUsage(cpu);
  // Of all threads, for each timed round.
  const cpuSeconds = (user + system) / 1e6 / Math.max(1, job.rounds);
  console.log(JSON.stringify({ seconds, cpuSeconds, peakBytes: peakBytes() }));
}

/** Largest resident size. The kernel's other figure, maxRSS, counts the process that started this one. */
function peakBytes() {
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
}
