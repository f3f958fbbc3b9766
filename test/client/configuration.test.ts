import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { configure, presets } from '../../src/client/configuration.ts';
import { readCredentialFields } from '../../src/client/credentials.ts';
import type { ClientOptions } from '../../src/client/options.ts';

const LEAF = { server: 'https://cambium.example', id: 'leaf', session_token: 'secret' };
const configurationOf = (options: ClientOptions) => configure(options, readCredentialFields(LEAF));

test('completes what was left out, by the documented defaults', () => {
  assert.equal(configurationOf({}), {
    connection: { server: 'https://cambium.example', generation: 'cambium' },
    timeouts: { responseMs: 30_000, idleMs: 60_000 },
    retry: {
      attempts: 5,
      baseMs: 500,
      factor: 2,
      maxMs: 15_000,
      maxRetryAfterMs: 120_000,
      statuses: undefined,
    },
    circuit: { failures: 5, pauseMs: 30_000 },
    run: { wait: false, checkIntervalMs: 30_000 },
    notices: { queue: 'all', pollIntervalMs: 30_000 },
    update: { format: 'npy-object', checkFinite: false, metadata: undefined },
  });
});

test('is frozen to the last member, holds no secret, and is an object of its own', () => {
  const statuses = [503];
  const configuration = configurationOf({ retry: { statuses } });
  statuses.push(418);
  assert.equal(configuration.retry.statuses, [503]);
  const members = [configuration, ...Object.values(configuration), configuration.retry.statuses];
  for (const member of members) assert.ok(Object.isFrozen(member));
  assert.not.match(JSON.stringify(configuration), /secret/);
});

test('presets are options, frozen, and leave the rest to their user', () => {
  for (const [name, preset] of Object.entries(presets)) {
    assert.ok(Object.isFrozen(preset) && Object.values(preset).every(Object.isFrozen), name);
    const { connection } = configurationOf({ ...preset, connection: { server: 'https://other.example' } });
    assert.is(connection.server, 'https://other.example');
  }
  assert.is(configurationOf(presets.production).run.wait, true);
  assert.is(configurationOf(presets.development).retry.attempts, 1);
});

test.run();
