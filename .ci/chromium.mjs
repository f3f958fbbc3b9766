// The Chromium that pages are tested in: Debian's, which the set-up installs, or the one that CAMBIUM_CHROMIUM names.
import { existsSync } from 'node:fs';

export const CHROMIUM = process.env.CAMBIUM_CHROMIUM ?? '/usr/bin/chromium';

/** Its path; null where there is none, after a line that the test runner counts. */
export function findChromium() {
  if (existsSync(CHROMIUM)) return CHROMIUM;
  console.log(`SKIPPED (missing peer): Chromium at ${CHROMIUM}; Debian: apt-get install chromium`);
  return null;
}

/** What keeps it from looking for hosts of its own. It runs without a sandbox: as root it must, and sees only our pages. */
export const FLAGS = [
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-gpu',
  '--disable-quic',
  '--disable-sync',
  '--no-first-run',
  '--no-sandbox',
];
