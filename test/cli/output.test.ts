import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { exitCodeOf, UsageError } from '../../src/cli/exit.ts';
import { formatBytes, tableLines, toJson } from '../../src/cli/output.ts';
import {
  AggregationError,
  CambiumError,
  FileError,
  FormatError,
  InternalError,
  ProtocolError,
  RefusedError,
  UnavailableError,
} from '../../src/errors.ts';

const test = suite('output');

test('JSON has strings for numbers that it cannot write', () => {
  assert.is(
    toJson({ a: Number.NaN, b: [Infinity, -Infinity, -0, 1.5], c: null }),
    '{"a":"NaN","b":["Infinity","-Infinity",0,1.5],"c":null}',
  );
});

test('a cell stays in its line, and does not steer the terminal', () => {
  assert.equal(tableLines(['name', 'size'], [['a\nb\u001b[31m', 1]]), [
    'name                size',
    'a\\u000ab\\u001b[31m     1',
  ]);
});

for (const [bytes, text] of [
  [0, '0 B'],
  [999, '999 B'],
  [1000, '1.00 kB'],
  [102_400_000, '102 MB'],
  [2.5e12, '2.50 TB'],
] as const) {
  test(`${bytes} bytes`, () => assert.is(formatBytes(bytes), text));
}

for (const [error, exitCode] of [
  [new UsageError('x'), 2],
  [new FormatError('npy-magic', 'x'), 65],
  [new AggregationError('non-finite', 'x'), 65],
  [new UnavailableError('unavailable-libsql', 'x'), 69],
  [new CambiumError('data-locked', 'x'), 69],
  [new CambiumError('serve-insecure', 'x'), 2],
  [new ProtocolError('protocol-x', 'x'), 69],
  [new InternalError('internal-worker', 'x'), 70],
  [new TypeError('x'), 70],
  [new FileError('disk-full', 'x', 'p'), 74],
  [new RefusedError('token-invalid', 'x', 401), 77],
  [new DOMException('x', 'AbortError'), 130],
] as const) {
  test(`${error.name} ends with ${exitCode}`, () => assert.is(exitCodeOf(error), exitCode));
}

test.run();
