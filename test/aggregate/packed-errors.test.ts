import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { packError, unpackError } from '../../src/aggregate/packed-errors.ts';
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

const test = suite('packed errors');

const place = { leaf: 'a', tensor: 1, index: 2, nonFinite: [{ leaf: 'a', tensor: 1, index: 2 }] };

for (const error of [
  new CambiumError('c', 'm'),
  new FormatError('npy-magic', 'no', { file: 'f', tensor: 'w', offset: 7 }),
  new AggregationError('non-finite', 'no', place),
  new FileError('disk-full', 'no', '/x'),
  new RefusedError('leaf-unknown', 'no', 404),
  new UnavailableError('unavailable-x', 'no'),
  new ProtocolError('protocol-x', 'no'),
  new InternalError('internal-x', 'no'),
]) {
  test(`${error.name} keeps its class and fields`, () => {
    const copy = unpackError(structuredClone(packError(error)));
    assert.is(copy.constructor, error.constructor);
    assert.equal({ ...copy }, { ...error });
    assert.is(copy.message, error.message);
    assert.is(copy.stack, error.stack);
  });
}

test('an error of another kind becomes internal', () => {
  const copy = unpackError(structuredClone(packError(new TypeError('oops'))));
  assert.ok(copy instanceof InternalError);
  assert.is(copy.code, 'internal-error');
  assert.is(copy.message, 'oops');
  assert.is(unpackError(packError('text')).message, 'text');
});

test.run();
