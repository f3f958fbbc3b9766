import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Emitter } from '../../src/client/client-events.ts';

const warning = (code: string) => ({ code, message: code });

test('listeners hear in order, each registration for itself, until it is taken away', () => {
  const events = new Emitter();
  const heard: string[] = [];
  const listener = ({ code }: { readonly code: string }) => void heard.push(code);
  const takeAway = events.on('warning', listener);
  events.on('warning', listener);
  events.on('warning', ({ code }) => void heard.push(`${code}!`));
  events.emit('warning', warning('a'));
  takeAway();
  takeAway();
  events.emit('warning', warning('b'));
  events.emit('close', {});
  assert.equal(heard, ['a', 'a', 'a!', 'b', 'b!']);
});

test('an error of a listener surfaces, and disturbs nobody', async () => {
  const events = new Emitter();
  let isHeard = false;
  const surfaced = new Promise((resolve) => process.once('uncaughtException', resolve));
  events.on('warning', () => {
    throw new Error('mine');
  });
  events.on('warning', () => {
    isHeard = true;
  });
  events.emit('warning', warning('a'));
  assert.is(isHeard, true);
  assert.is(((await surfaced) as Error).message, 'mine');
});

test.run();
