import { readFile } from 'node:fs/promises';
import { type Credentials, readCredentialFields } from '../client/credentials.ts';
import { CambiumError, isCambiumError } from '../errors.ts';
import { fileError } from './file-errors.ts';

/** Where the environment has credentials: a path or JSON; or a path. */
const VARIABLE = 'CAMBIUM_CREDENTIALS';
const FILE_VARIABLE = 'CAMBIUM_CREDENTIALS_FILE';

/**
 * Reads credentials and checks that they are complete: those of our servers, and those of BranchKey of every version, as
 * their documentation prints them.
 *
 * @param source a path, or the credentials as JSON or as an object. Default: what the environment variable
 *   CAMBIUM_CREDENTIALS says, a path or JSON; else the file that CAMBIUM_CREDENTIALS_FILE names
 * @param environment default: that of the process
 * @throws FileError; CambiumError `credentials-invalid`, `credentials-missing`, `credentials-conflict`
 */
export async function readCredentials(
  source?: string | Credentials,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Promise<Credentials> {
  const { value, name } = await open(source, environment);
  try {
    readCredentialFields(value);
  } catch (error) {
    throw isCambiumError(error) ? new CambiumError(error.code, `${name}: ${error.message}`) : error;
  }
  return value;
}

interface Opened {
  readonly value: Credentials;
  /** What they are called in messages. */
  readonly name: string;
}

async function open(
  source: string | Credentials | undefined,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<Opened> {
  if (typeof source === 'string') return openText(source, 'the credentials');
  if (source !== undefined) return { value: source, name: 'the credentials' };
  const { [VARIABLE]: direct = '', [FILE_VARIABLE]: file = '' } = environment;
  if (direct !== '' && file !== '') {
    throw new CambiumError(
      'credentials-conflict',
      `${VARIABLE} and ${FILE_VARIABLE} are both set: keep one of them`,
    );
  }
  if (direct !== '') return openText(direct, VARIABLE);
  if (file !== '') return openFile(file);
  throw new CambiumError(
    'credentials-missing',
    `no credentials are given: name their file, or set ${VARIABLE}`,
  );
}

/** JSON begins with a brace, which no path that is likely to be meant does. */
function openText(text: string, name: string): Opened | Promise<Opened> {
  return /^\s*\{/.test(text) ? { value: parse(text, name), name } : openFile(text);
}

async function openFile(path: string): Promise<Opened> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw fileError(error, path, 'read');
  }
  return { value: parse(text, path), name: path };
}

function parse(text: string, name: string): Credentials {
  try {
    return JSON.parse(text);
  } catch {
    // Without its cause, whose message would quote the text.
    throw new CambiumError('credentials-invalid', `${name} is no JSON`);
  }
}
