import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { fileError } from '../node/file-errors.ts';
import { startJobs } from '../node/workers.ts';
import { startServer } from '../server/index.ts';
import { VERSION } from '../wire/version.ts';
import { BLOCKED_PORTS } from './blocked-ports.ts';
import { UsageError } from './exit.ts';
import { printJson, printLine, printNote } from './output.ts';
import { integerOf, optional, readSettings, type Settings } from './settings.ts';

interface ServeOptions extends Settings {
  readonly config?: string;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** `cambium serve`: runs until it is interrupted. */
export async function serve(options: ServeOptions): Promise<void> {
  const settings = await readSettings(options, options.config);
  const jobs = startJobs();
  try {
    const server = await startServer({ ...(await serverOptions(settings)), jobs, version: VERSION });
    const { url, dataDir, operatorFile } = server;
    if (options.json) printJson({ url, dataDir });
    else {
      printLine(`cambium ${VERSION} listens on ${url}`);
      printLine(`data in ${dataDir}, operator token in ${operatorFile}`);
    }
    const port = Number(new URL(url).port);
    if (BLOCKED_PORTS.has(port)) {
      printNote(`cambium: browsers and Node's fetch refuse port ${port}: leaves need a proxy at another`);
    }
    if (!options.signal.aborted) await once(options.signal, 'abort');
    await server.close();
  } finally {
    await jobs.close();
  }
}

async function serverOptions(settings: Settings) {
  const { host, behindProxy, publicUrl, tlsCert, tlsKey, corsOrigin } = settings;
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new UsageError('--tls-cert and --tls-key go together');
  }
  return {
    dataDir: settings.data ?? './cambium-data',
    host,
    behindProxy,
    publicUrl,
    port: optional(settings.port, (text) => integerOf('port', text, 0, 65_535)),
    maxUploadBytes: optional(settings.maxUpload, (text) =>
      integerOf('max-upload', text, 1, Number.MAX_SAFE_INTEGER),
    ),
    keepUpdates: optional(settings.keepUpdates, (text) => integerOf('keep-updates', text, 0, 1_000_000)),
    corsOrigins: corsOrigin?.split(',').map((origin) => origin.trim()),
    broker: await brokerOptions(settings),
    tlsCert: tlsCert === undefined ? undefined : await readText(tlsCert),
    tlsKey: tlsKey === undefined ? undefined : await readText(tlsKey),
  };
}

async function brokerOptions(settings: Settings) {
  const { broker, brokerManagement, brokerAuth, brokerCa, brokerPublicUrl } = settings;
  if (broker === undefined) {
    const alone = (['brokerManagement', 'brokerAuth', 'brokerCa', 'brokerPublicUrl'] as const).find(
      (name) => settings[name] !== undefined,
    );
    if (alone !== undefined) throw new UsageError(`${alone} is of no use without --broker`);
    return undefined;
  }
  if (brokerAuth !== undefined && brokerAuth !== 'http' && brokerAuth !== 'provision') {
    throw new UsageError(`--broker-auth ${brokerAuth}: http or provision`);
  }
  return {
    url: broker,
    managementUrl: brokerManagement,
    auth: brokerAuth,
    ca: brokerCa === undefined ? undefined : await readText(brokerCa),
    publicUrl: brokerPublicUrl,
  } as const;
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw fileError(cause, path, 'read');
  }
}
