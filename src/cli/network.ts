import { readFile } from 'node:fs/promises';
import { fileError } from '../node/file-errors.ts';
import type { NetworkOptions } from '../node/network.ts';
import { readServerUrl } from '../transport/server-url.ts';
import { UsageError } from './exit.ts';

/** Options of commands that go to a server as a leaf. */
export interface NetworkFlags {
  readonly proxy?: string;
  readonly ca?: string;
}

/** Looks at the address of a server before anything is opened for it. Throws UsageError. */
export function checkServer(option: string, server: string | undefined): void {
  if (server === undefined) return;
  try {
    readServerUrl(server);
  } catch (error) {
    throw new UsageError(`${option}: ${(error as TypeError).message}`); // it throws nothing else
  }
}

/** What the options say of the network; undefined when they say nothing. Throws FileError. */
export async function readNetwork({
  proxy,
  ca,
}: NetworkFlags): Promise<(NetworkOptions & { readonly ca?: string }) | undefined> {
  if (proxy === undefined && ca === undefined) return undefined;
  return { ...(proxy !== undefined && { proxy }), ...(ca !== undefined && { ca: await readPem(ca) }) };
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw fileError(cause, path, 'read');
  }
}
