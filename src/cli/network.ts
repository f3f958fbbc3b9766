import { readFile } from 'node:fs/promises';
import { fileError } from '../node/file-errors.ts';
import type { NetworkOptions } from '../node/network.ts';

/** Options of commands that go to a server as a leaf. */
export interface NetworkFlags {
  readonly proxy?: string;
  readonly ca?: string;
}

/** What the options say of the network; undefined when they say nothing. Throws FileError. */
export async function readNetwork({ proxy, ca }: NetworkFlags): Promise<NetworkOptions | undefined> {
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
