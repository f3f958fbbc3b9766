// Credentials as object, JSON, file and environment; as our servers write them and as the documentation of each
// generation of BranchKey prints them.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Credentials, readCredentialFields } from '../../src/client/credentials.ts';
import { readCredentials } from '../../src/node/read-credentials.ts';
import { failsWith } from '../helpers/errors.ts';

const place = { tree_id: 't', branch_id: 'b' };
const analyser = { performance_analyser_username: 'a', performance_analyser_password: 'p' };
const basic = { leaf_name: 'n', leaf_id: 'i', leaf_session_token: 'secret', response_host: 'h' };

/** By versions of the client that reads them. */
const PRINTED: readonly [versions: string, credentials: Credentials, generation: string][] = [
  [
    '2.0.x',
    { leaf_name: 'n', leaf_password: 'secret', ...place, queue_password: 'q', response_host: 'h' },
    'login',
  ],
  ['2.1 to 2.2', { leaf_name: 'n', leaf_password: 'secret', ...place, queue_password: 'q' }, 'login'],
  ['2.3', basic, 'basic'],
  ['2.4 to 2.5', { ...basic, ...analyser }, 'basic'],
  ['2.6 to 2.8.0', basic, 'basic'],
  ['2.7 and later', { name: 'n', id: 'i', session_token: 'secret', ...place, owner_id: 'o' }, 'bearer'],
  ['of our servers', { server: 'http://x', id: 'i', session_token: 'secret', ...basic }, 'cambium'],
];

for (const [versions, credentials, generation] of PRINTED) {
  test(`${versions}: by object, JSON, file and environment`, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cambium-credentials-'));
    try {
      const path = join(folder, 'leaf.json');
      const json = JSON.stringify(credentials, null, 2);
      await writeFile(path, json);
      assert.is(readCredentialFields(credentials).generation, generation);
      const read = [
        readCredentials(credentials),
        readCredentials(json),
        readCredentials(path),
        readCredentials(undefined, { CAMBIUM_CREDENTIALS: json }),
        readCredentials(undefined, { CAMBIUM_CREDENTIALS: path }),
        readCredentials(undefined, { CAMBIUM_CREDENTIALS_FILE: path, CAMBIUM_CREDENTIALS: '' }),
      ];
      for (const each of read) assert.equal(await each, credentials);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
}

type Environment = Record<string, string>;

const WRONG: readonly [name: string, environment: Environment, code: string, says: RegExp][] = [
  ['nothing', {}, 'credentials-missing', /set CAMBIUM_CREDENTIALS$/],
  ['both', { CAMBIUM_CREDENTIALS: '{}', CAMBIUM_CREDENTIALS_FILE: 'x' }, 'credentials-conflict', /keep one/],
  [
    'half',
    { CAMBIUM_CREDENTIALS: '{"id":"i"}' },
    'credentials-missing',
    /CREDENTIALS: the credentials lack session_token/,
  ],
  [
    'half of 2.7',
    { CAMBIUM_CREDENTIALS: '{"leaf_password":"secret"}' },
    'credentials-missing',
    /lack leaf_name and tree_id/,
  ],
  ['cut', { CAMBIUM_CREDENTIALS: '{"session_token":"secret"' }, 'credentials-invalid', /is no JSON/],
  [
    'no text',
    { CAMBIUM_CREDENTIALS: '{"id":7,"session_token":"secret"}' },
    'credentials-invalid',
    /id must be a text/,
  ],
  [
    'two ids',
    { CAMBIUM_CREDENTIALS: '{"id":"a","leaf_id":"b","session_token":"secret"}' },
    'credentials-conflict',
    /differ/,
  ],
  ['no file', { CAMBIUM_CREDENTIALS_FILE: '/none/leaf.json' }, 'file-not-found', /no such file/],
];

for (const [name, environment, code, says] of WRONG) {
  test(`${name}: ${code}, without the token`, async () => {
    const error = await failsWith(code, () => readCredentials(undefined, environment));
    assert.match(error.message, says);
    assert.not.match(`${error.message} ${error.cause}`, /secret/);
  });
}

test.run();
