/**
 * Pages in headless Chromium: a static server with a strict content security policy, and a record of what the page asked
 * for and complained about.
 */
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, chromium, type Page } from 'playwright-core';
import { FLAGS, findChromium } from '../../.ci/chromium.mjs';
import { type LoopbackServer, serve } from './loopback.ts';

/** Whether this machine has a Chromium. If not, the caller's tests are left out, and the runner counts the line. */
export const hasChromium = (): boolean => findChromium() !== null;

/** Playwright's own patience is half a minute, which a machine that is busy can exceed. */
const PATIENCE_MS = 240_000;

export async function launchChromium(args: readonly string[] = []): Promise<Browser> {
  const executablePath = findChromium();
  if (executablePath === null) throw new Error('there is no Chromium');
  return chromium.launch({ executablePath, args: [...FLAGS, ...args], timeout: PATIENCE_MS });
}

/** The strictest policy that WebAssembly lives under. */
export const STRICT_POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'";

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
};

const root = fileURLToPath(new URL('../..', import.meta.url));

/** What a page is given besides the files below: path and body. */
type Extras = Readonly<Record<string, Uint8Array | string>>;

/**
 * Serves `/dist/…` and `/test/…` of this package, and the page `/` that loads nothing but the script `/page.js`.
 *
 * @param policyOf sent with every file, workers' own too
 */
function servePage(script: string, policyOf: () => string, extras: Extras = {}): Promise<LoopbackServer> {
  const pages: Extras = {
    '/': '<!doctype html><meta charset="utf-8"><title>Cambium</title><script type="module" src="/page.js"></script>',
    '/page.js': script,
    '/favicon.ico': '',
    ...extras,
  };
  return serve(async (request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    const path = normalize(decodeURIComponent(pathname));
    const extra = pages[path];
    const isPublic = /^\/(dist|test\/fixtures)\//.test(path);
    const body = extra ?? (isPublic ? await readFile(join(root, path)).catch(() => undefined) : undefined);
    if (body === undefined) {
      response.writeHead(404, { 'content-security-policy': policyOf() }).end();
      return;
    }
    response.writeHead(200, {
      'content-type': TYPES[extname(path)] ?? (path === '/' ? TYPES['.html'] : 'application/octet-stream'),
      'content-security-policy': policyOf(),
      'cache-control': 'no-store',
    });
    response.end(body);
  });
}

/** A page that is open, and what it did that it should not. */
export interface OpenPage {
  readonly page: Page;
  readonly server: LoopbackServer;
  /** Errors and warnings of the console, and what nobody caught. */
  readonly complaints: string[];
  /** Addresses that were asked for, by page and workers, without the server's own. */
  readonly strangers: string[];
  close(): Promise<void>;
}

interface PageOptions {
  /** Strict unless given; a function is told the page's address first, for servers that must know it. */
  readonly policy?: string | ((url: string) => Promise<string>);
  readonly extras?: Extras;
  /** Runs in the page before anything else. */
  readonly before?: string;
}

/** Opens the page of a server of its own, and waits until its script has run. */
export async function openPage(
  browser: Browser,
  script: string,
  options: PageOptions = {},
): Promise<OpenPage> {
  let policy = STRICT_POLICY;
  const server = await servePage(script, () => policy, options.extras);
  if (typeof options.policy === 'function') policy = await options.policy(server.url);
  else policy = options.policy ?? STRICT_POLICY;
  const context = await browser.newContext();
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const complaints: string[] = [];
  const strangers: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  context.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(`${server.url}/`) && !url.startsWith('data:')) strangers.push(url);
  });
  await page.addInitScript('globalThis.__name = (named) => named'); // what tsx puts around functions in "evaluate"
  if (options.before !== undefined) await page.addInitScript(options.before);
  await page.goto(`${server.url}/`);
  await page.waitForFunction('globalThis.isReady === true');
  return {
    page,
    server,
    complaints,
    strangers,
    async close() {
      await context.close();
      await server.close();
    },
  };
}
