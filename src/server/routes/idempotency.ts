import type { FastifyRequest } from 'fastify';
import { Refusal } from '../domain/refusal.ts';

/** Longer keys are no keys: a UUID has 36 characters. */
const MAX_KEY_LENGTH = 200;

/**
 * The name that a sender gives a request, so that its repetition can be told from another one.
 *
 * @throws Refusal `idempotency-key-invalid`
 */
export function idempotencyKey(request: FastifyRequest): string | undefined {
  const key = request.headers['idempotency-key'];
  if (key === undefined) return undefined;
  if (typeof key !== 'string' || key === '' || key.length > MAX_KEY_LENGTH) {
    throw new Refusal(
      'malformed',
      'idempotency-key-invalid',
      `an idempotency key has 1 to ${MAX_KEY_LENGTH} characters`,
    );
  }
  return key;
}
