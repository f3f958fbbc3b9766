import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { hashToken, isSignature, isToken, newToken, signLink } from '../../src/server/tokens.ts';

test('a token has 32 random bytes in base64url', () => {
  const tokens = new Set(Array.from({ length: 100 }, newToken));
  assert.is(tokens.size, 100);
  for (const token of tokens) assert.match(token, /^[A-Za-z0-9_-]{43}$/);
});

test('what is kept has the form of RabbitMQ: salt, then SHA-256 of salt and token', () => {
  // The worked example of RabbitMQ's documentation: salt 0x908DC60A, password "test12".
  const salt = Buffer.from('908DC60A', 'hex');
  assert.is(hashToken('test12', salt), 'kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR');
  assert.is(Buffer.from(hashToken('x'), 'base64').byteLength, 36);
});

test('only the token itself is the token', () => {
  const token = newToken();
  const hash = hashToken(token);
  assert.ok(isToken(token, hash));
  for (const other of ['', `${token} `, token.slice(1), newToken(), hash])
    assert.not.ok(isToken(other, hash));
  assert.not.ok(isToken(token, ''));
  assert.not.ok(isToken(token, 'AAAA'));
});

test('a signature holds for its file, reader and time only', () => {
  const key = newToken();
  const signature = signLink(key, 'file', 'leaf', 1000);
  assert.ok(isSignature(key, signature, 'file', 'leaf', 1000));
  assert.not.ok(isSignature(key, signature, 'file2', 'leaf', 1000));
  assert.not.ok(isSignature(key, signature, 'file', 'leaf2', 1000));
  assert.not.ok(isSignature(key, signature, 'file', 'leaf', 1001));
  assert.not.ok(isSignature(newToken(), signature, 'file', 'leaf', 1000));
  assert.not.ok(isSignature(key, '', 'file', 'leaf', 1000));
  assert.not.ok(isSignature(key, signature, 'file', 'leaf', Number.NaN));
});

test.run();
