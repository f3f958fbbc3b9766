import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Credentials, readCredentialFields } from '../../src/client/credentials.ts';
import { failsWith } from '../helpers/errors.ts';

const SERVER_FILE = {
  server: 'http://127.0.0.1:8740',
  id: 'leaf',
  name: 'north',
  session_token: 'secret',
  owner_id: 'user',
  tree_id: 'tree',
  branch_id: 'branch',
  leaf_id: 'leaf',
  leaf_name: 'north',
  leaf_session_token: 'secret',
  response_host: '127.0.0.1',
};

test('the whole file, each spelling alone, and the least', () => {
  const expected = {
    generation: 'cambium',
    server: 'http://127.0.0.1:8740',
    leafId: 'leaf',
    sessionToken: 'secret',
    leafName: 'north',
    treeId: 'tree',
    branchId: 'branch',
    userId: 'user',
    password: null,
  };
  const { id, name, session_token, leaf_id, leaf_name, leaf_session_token, ...rest } = SERVER_FILE;
  assert.equal(readCredentialFields(SERVER_FILE), expected);
  assert.equal(readCredentialFields({ ...rest, id, name, session_token }), expected);
  assert.equal(readCredentialFields({ ...rest, leaf_id, leaf_name, leaf_session_token }), expected);
  assert.equal(readCredentialFields({ id, leaf_session_token }), {
    generation: 'basic',
    server: 'https://api.branchkey.com',
    leafId: 'leaf',
    sessionToken: 'secret',
    leafName: null,
    treeId: null,
    branchId: null,
    userId: null,
    password: null,
  });
});

test('a file of ours is ours without its server too, whatever other clients read in it', () => {
  const analyser = { performance_analyser_username: 'leaf', performance_analyser_password: 'secret' };
  const { server, ...rest } = { ...SERVER_FILE, leaf_password: 'secret', queue_password: 'q', ...analyser };
  const identity = readCredentialFields(rest);
  assert.equal([identity.generation, identity.server], ['cambium', undefined]);
});

const REFUSED: readonly [name: string, credentials: unknown, code: string, says: RegExp][] = [
  ['nothing', undefined, 'credentials-invalid', /object/],
  ['a text', 'secret', 'credentials-invalid', /object/],
  ['no members', {}, 'credentials-missing', /id \(or leaf_id\) and session_token \(or leaf_session_token\)/],
  ['no id', { session_token: 'secret' }, 'credentials-missing', /lack id \(or leaf_id\);/],
  ['no token', { id: 'leaf' }, 'credentials-missing', /lack session_token \(or leaf_session_token\);/],
  ['an empty token', { id: 'leaf', session_token: '' }, 'credentials-missing', /session_token/],
  ['ids that differ', { ...SERVER_FILE, leaf_id: 'other' }, 'credentials-conflict', /id and leaf_id differ/],
  ['tokens that differ', { ...SERVER_FILE, session_token: 'other' }, 'credentials-conflict', /differ/],
  ['a number', { ...SERVER_FILE, id: 7 }, 'credentials-invalid', /id must be a text, not number/],
  ['a token with a line end', { id: 'leaf', session_token: 'secret\n' }, 'credentials-invalid', /token/],
  ['an id with a colon', { id: 'le:af', session_token: 'secret' }, 'credentials-invalid', /id/],
];

for (const [name, credentials, code, says] of REFUSED) {
  test(`refused: ${name}`, async () => {
    // What JSON.parse gives may be anything.
    const error = await failsWith(code, () => readCredentialFields(credentials as Credentials));
    assert.match(error.message, says);
    assert.not.match(error.message, /secret/);
  });
}

test.run();
