/**
 * Tokens of leaves and operators. What is kept of one is base64(salt + SHA-256(salt + token)) with a salt of four bytes,
 * the form in which RabbitMQ keeps passwords, so that a broker's users can be made without knowing the token. One round
 * of hashing is enough: a token has 256 random bits, there is nothing to guess.
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

const SALT_BYTES = 4;

/** Makes a token: 32 random bytes in base64url. */
export function newToken(): string {
  return randomBytes(32).toString('base64url');
}

/** What to keep of a token. */
export function hashToken(token: string, salt = randomBytes(SALT_BYTES)): string {
  return Buffer.concat([salt, digestOf(salt, token)]).toString('base64');
}

/** Whether a token is the one that was hashed; takes the same time for every token. */
export function isToken(token: string, hash: string): boolean {
  const kept = Buffer.from(hash, 'base64');
  const salt = kept.subarray(0, SALT_BYTES);
  const digest = kept.subarray(SALT_BYTES);
  const actual = digestOf(salt, token);
  return digest.byteLength === actual.byteLength && timingSafeEqual(digest, actual);
}

/** Signature of a link: it says who may fetch which file until when. */
export function signLink(key: string, file: string, reader: string, expires: number): string {
  return createHmac('sha256', Buffer.from(key, 'base64url'))
    .update(`${file}\n${reader}\n${expires}`)
    .digest('base64url');
}

/** Whether a link was signed with the key. */
export function isSignature(
  key: string,
  signature: string,
  file: string,
  reader: string,
  expires: number,
): boolean {
  const expected = Buffer.from(signLink(key, file, reader, expires));
  const actual = Buffer.from(signature);
  return expected.byteLength === actual.byteLength && timingSafeEqual(expected, actual);
}

function digestOf(salt: Uint8Array, token: string): Buffer {
  return createHash('sha256').update(salt).update(token, 'utf8').digest();
}

/** The password of a branch's user at the broker, which all its leaves of 2.0.x share: made from a key, kept nowhere. */
export function queuePassword(key: string, branchId: string): string {
  return createHmac('sha256', Buffer.from(key, 'base64url')).update(`queue\n${branchId}`).digest('base64url');
}
