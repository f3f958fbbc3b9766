import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { linkSignals } from '../../src/transport/signals.ts';

test('aborts with the first source, and its reason', () => {
  const [a, b] = [new AbortController(), new AbortController()];
  const { signal } = linkSignals(a.signal, undefined, b.signal);
  assert.is(signal.aborted, false);
  b.abort('b');
  a.abort('a');
  assert.is(signal.reason, 'b');
});

test('is aborted from the start by an aborted source', () => {
  assert.is(linkSignals(undefined, AbortSignal.abort('gone')).signal.reason, 'gone');
});

test('aborts by itself without its sources', () => {
  const source = new AbortController();
  const link = linkSignals(source.signal);
  link.abort('own');
  assert.is(link.signal.reason, 'own');
  assert.is(source.signal.aborted, false);
});

test('does not hear the sources after `unlink`', () => {
  const source = new AbortController();
  const link = linkSignals(source.signal);
  link.unlink();
  source.abort();
  assert.is(link.signal.aborted, false);
});

test.run();
