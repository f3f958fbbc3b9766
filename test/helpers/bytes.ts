import * as assert from 'uvu/assert';

/**
 * Compares numeric results as bytes: NaN payloads and the sign of zero count, and a mismatch names the first element
 * that differs instead of printing thousands.
 */
export function sameBytes(actual: ArrayBufferView, expected: ArrayBufferView, what = 'bytes'): void {
  const a = new Uint8Array(actual.buffer, actual.byteOffset, actual.byteLength);
  const b = new Uint8Array(expected.buffer, expected.byteOffset, expected.byteLength);
  assert.is(a.byteLength, b.byteLength, `${what}: ${a.byteLength} bytes, expected ${b.byteLength}`);
  if (Buffer.compare(a, b) === 0) return;
  const index = a.findIndex((byte, i) => byte !== b[i]);
  const from = Math.max(0, index - 8);
  const hex = (bytes: Uint8Array) => Buffer.from(bytes.subarray(from, index + 8)).toString('hex');
  assert.unreachable(`${what}: differ at byte ${index}: …${hex(a)}… expected …${hex(b)}…`);
}
