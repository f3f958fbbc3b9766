// Calls in a row that do not reach the server: refused for a while, then one is let through.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Circuit } from '../../src/client/circuit.ts';
import { Emitter } from '../../src/client/client-events.ts';
import { FormatError, RefusedError, UnavailableError } from '../../src/errors.ts';
import { retryPolicy, TransientFailure, withRetries } from '../../src/transport/retry.ts';
import { ManualClock } from '../helpers/clock.ts';
import { failsWith } from '../helpers/errors.ts';

function circuitOf(failures = 2) {
  const clock = new ManualClock();
  const events = new Emitter();
  const states: string[] = [];
  events.on('circuit', ({ state }) => states.push(state));
  return { clock, states, circuit: new Circuit({ failures, pauseMs: 1000 }, clock, events) };
}

/** As a call ends that has used up its tries. */
const lost = () => {
  const failure = new TransientFailure(new UnavailableError('unavailable-server', 'gone'));
  return withRetries(retryPolicy({ attempts: 1 }), undefined, () => Promise.reject(failure));
};
const answered = async () => 'answer';
const refused = () => Promise.reject(new RefusedError('run-paused', 'no', 409));
const broken = () => Promise.reject(new FormatError('npy-truncated', 'cut'));

test('opens after so many calls in a row, and says what was wrong and for how long', async () => {
  const { circuit, clock, states } = circuitOf();
  for (let i = 0; i < 2; i++) await failsWith('unavailable-server', () => circuit.run(lost));
  assert.equal(states, ['open']);
  clock.pass(400);
  let ran = false;
  const error = await failsWith('unavailable-circuit', () => circuit.run(async () => (ran = true)));
  assert.ok(error instanceof UnavailableError && error.retryAfterMs === 600);
  assert.match(error.message, /last 2 calls, not tried again for 1 s: gone/);
  assert.is((error.cause as UnavailableError).attempts, 1);
  assert.is(ran, false);
});

test('half-opens after the pause: one call decides for all', async () => {
  const { circuit, clock, states } = circuitOf();
  for (let i = 0; i < 2; i++) await failsWith('unavailable-server', () => circuit.run(lost));
  clock.pass(1000);
  let answer = (_: string) => {};
  const probe = circuit.run(() => new Promise<string>((resolve) => (answer = resolve)));
  await failsWith('unavailable-circuit', () => circuit.run(answered));
  answer('here');
  assert.is(await probe, 'here');
  assert.is(await circuit.run(answered), 'answer');
  assert.equal(states, ['open', 'half-open', 'closed']);
});

test('a probe that fails opens it again; one that was given up leaves it to the next', async () => {
  const { circuit, clock, states } = circuitOf();
  for (let i = 0; i < 2; i++) await failsWith('unavailable-server', () => circuit.run(lost));
  clock.pass(1000);
  await failsWith('unavailable-server', () => circuit.run(lost));
  await failsWith('unavailable-circuit', () => circuit.run(answered));
  clock.pass(1000);
  assert.is(await circuit.run(() => Promise.reject('aborted')).catch((reason: unknown) => reason), 'aborted');
  assert.is(await circuit.run(answered), 'answer');
  assert.equal(states, ['open', 'half-open', 'open', 'half-open', 'half-open', 'closed']);
});

test('an answer, a no included, and a notice begin the count anew; what needs no server does not', async () => {
  const { circuit, states } = circuitOf();
  const lose = () => failsWith('unavailable-server', () => circuit.run(lost));
  await lose();
  await circuit.run(answered);
  await lose();
  await failsWith('run-paused', () => circuit.run(refused));
  await lose();
  circuit.close();
  await lose();
  assert.equal(states, []);
  await failsWith('npy-truncated', () => circuit.run(broken));
  await lose();
  assert.equal(states, ['open']);
});

test('a clock that is put back, or ahead, keeps nobody out', async () => {
  for (const jumpMs of [-86_400_000, 86_400_000]) {
    const { circuit, clock, states } = circuitOf(1);
    await failsWith('unavailable-server', () => circuit.run(lost));
    await failsWith('unavailable-circuit', () => circuit.run(answered));
    clock.jump(jumpMs);
    assert.is(await circuit.run(answered), 'answer');
    assert.equal(states, ['open', 'half-open', 'closed']);
  }
});

test('Infinity never opens it', async () => {
  const { circuit } = circuitOf(Number.POSITIVE_INFINITY);
  for (let i = 0; i < 20; i++) await failsWith('unavailable-server', () => circuit.run(lost));
});

test.run();
