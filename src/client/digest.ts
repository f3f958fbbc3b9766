import { UnavailableError } from '../errors.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import type { FileAccess } from './file-access.ts';
import { readBlocks } from './source-bytes.ts';

/** SHA-256 of a source in lower-case hexadecimal, block by block. */
export async function digestOf(source: ByteSource, files: FileAccess, signal?: AbortSignal): Promise<string> {
  const hash = files.sha256();
  for await (const block of readBlocks(source)) {
    signal?.throwIfAborted();
    hash.update(block);
  }
  return hash.digest();
}

/**
 * The same of bytes in memory, by WebCrypto.
 *
 * @throws UnavailableError `unavailable-crypto` on pages without a secure context
 */
export async function digestOfBytes(bytes: Uint8Array): Promise<string> {
  const subtle = globalThis.crypto?.subtle as SubtleCrypto | undefined; // absent where the context is not secure
  if (subtle === undefined) {
    throw new UnavailableError(
      'unavailable-crypto',
      'this page has no WebCrypto, which checks files: serve it by https or from localhost',
    );
  }
  return hex(new Uint8Array(await subtle.digest('SHA-256', bytes as BufferSource)));
}

/** The digest of a `Repr-Digest` header in hexadecimal; undefined when it names no SHA-256. */
export function readReprDigest(header: string | null): string | undefined {
  const [, base64] = /(?:^|[\s,])sha-256=:([A-Za-z0-9+/]{43}=):/.exec(header ?? '') ?? [];
  return base64 === undefined ? undefined : hex(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));
}

/** A `Repr-Digest` header for a digest in hexadecimal (RFC 9530). */
export function writeReprDigest(sha256: string): string {
  const bytes = sha256.match(/../g) ?? [];
  return `sha-256=:${btoa(String.fromCharCode(...bytes.map((byte) => Number.parseInt(byte, 16))))}:`;
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
