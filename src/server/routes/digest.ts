import type { FastifyRequest } from 'fastify';
import { Refusal } from '../domain/refusal.ts';

/**
 * SHA-256 of `Repr-Digest` (of the whole file) or `Content-Digest` (of this body), both of RFC 9530, in hexadecimal;
 * other algorithms are not looked at.
 *
 * @throws Refusal `digest-invalid`
 */
export function expectedDigest(
  request: FastifyRequest,
  name: 'repr-digest' | 'content-digest' = 'repr-digest',
): string | undefined {
  const header = [request.headers[name] ?? []].flat().join(',');
  const entry = header.split(',').find((part) => part.trim().startsWith('sha-256='));
  if (entry === undefined) return undefined;
  const value = /^sha-256=:([A-Za-z0-9+/]{43}=):$/.exec(entry.trim())?.[1];
  if (value === undefined) {
    throw new Refusal('malformed', 'digest-invalid', `send ${name} as sha-256=:<base64>:`);
  }
  return Buffer.from(value, 'base64').toString('hex');
}

/** The refusal for bytes with another digest than their header says. */
export function digestMismatch(name: string, expected: string, actual: string): Refusal {
  const message = `the bytes that arrived have another SHA-256 than ${name} says`;
  return new Refusal('malformed', 'digest-mismatch', message, { expected, actual });
}
