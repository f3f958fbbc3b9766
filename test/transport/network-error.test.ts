import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { isCambiumError } from '../../src/errors.ts';
import { networkError } from '../../src/transport/network-error.ts';
import { TransientFailure } from '../../src/transport/retry.ts';

function coded(code: string, message = code): Error {
  return Object.assign(new Error(message), { code });
}

/** As Node's fetch wraps it. */
function fetchFailed(cause: unknown): Error {
  return new TypeError('fetch failed', { cause });
}

const TABLE: readonly [cause: unknown, code: string, isTransient: boolean, says: RegExp][] = [
  [fetchFailed(coded('ECONNREFUSED')), 'unavailable-server', true, /nothing listens there/],
  [fetchFailed(coded('ENOTFOUND')), 'unavailable-server', true, /host name is unknown/],
  [fetchFailed(coded('ECONNRESET')), 'unavailable-server', true, /connection broke/],
  [new TypeError('terminated', { cause: coded('UND_ERR_SOCKET') }), 'unavailable-server', true, /broke/],
  [fetchFailed(coded('EWEIRD')), 'unavailable-server', true, /failed \(EWEIRD\)/],
  [new TypeError('Failed to fetch'), 'unavailable-server', true, /the connection failed$/],
  ['not even an error', 'unavailable-server', true, /the connection failed$/],
  [fetchFailed(coded('UND_ERR_CONNECT_TIMEOUT')), 'timeout', true, /in time/],
  [fetchFailed(coded('UND_ERR_HEADERS_TIMEOUT')), 'timeout', true, /in time/],
  [fetchFailed(coded('DEPTH_ZERO_SELF_SIGNED_CERT')), 'unavailable-tls', false, /certificate/],
  [fetchFailed(coded('ERR_SSL_WRONG_VERSION_NUMBER')), 'unavailable-tls', false, /: no TLS is spoken there/],
  [fetchFailed(coded('CERT_HAS_EXPIRED')), 'unavailable-tls', false, /CERT_HAS_EXPIRED/],
  [fetchFailed(coded('ERR_TLS_CERT_ALTNAME_INVALID')), 'unavailable-tls', false, /certificate/],
  [fetchFailed(coded('UNABLE_TO_VERIFY_LEAF_SIGNATURE')), 'unavailable-tls', false, /certificate/],
  [fetchFailed(coded('HPE_INVALID_CONSTANT')), 'protocol-http', false, /not HTTP/],
  [fetchFailed(new Error('bad port')), 'unavailable-server', false, /refuses this port/],
  [fetchFailed(new Error('unexpected redirect')), 'protocol-redirect', false, /final address/],
];

test('what fetch rejects with becomes an error of ours, and tells whether to try again', () => {
  for (const [cause, code, isTransient, says] of TABLE) {
    const error = networkError(cause, 'GET http://x/y');
    assert.is(error instanceof TransientFailure, isTransient, code);
    const failure = error instanceof TransientFailure ? error.failure : error;
    assert.ok(isCambiumError(failure));
    assert.is(failure.code, code);
    assert.match(failure.message, says);
    assert.match(failure.message, /^GET http:\/\/x\/y: /);
    assert.is(failure.cause, cause);
  }
});

test('a chain of causes that bites its tail ends', () => {
  const a = new Error('a');
  a.cause = new Error('b', { cause: a });
  assert.ok(networkError(a, 'x') instanceof TransientFailure);
});

test.run();
