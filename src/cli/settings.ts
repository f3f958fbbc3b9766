/** Settings of the server: option, else environment variable, else configuration file, else default. */
import { readFile } from 'node:fs/promises';
import { fileError } from '../node/file-errors.ts';
import { UsageError } from './exit.ts';

/** The settings by name, as text; `tlsCert` is `--tls-cert`, `CAMBIUM_TLS_CERT` and `"tlsCert"`. */
const NAMES = [
  'data',
  'host',
  'port',
  'tlsCert',
  'tlsKey',
  'behindProxy',
  'publicUrl',
  'corsOrigin',
  'maxUpload',
  'keepUpdates',
  'broker',
  'brokerManagement',
  'brokerAuth',
  'brokerCa',
  'brokerPublicUrl',
] as const;

/** Settings that hold passwords: each may also come from a file that `CAMBIUM_…_FILE` names. */
const SECRETS: readonly string[] = ['broker', 'brokerManagement'];

type SettingName = (typeof NAMES)[number];
export type Settings = Readonly<Partial<Record<SettingName, string>>>;

/**
 * Collects the settings.
 *
 * @param options what the command line says
 * @param configPath a JSON object with settings by name
 * @throws FileError when the file cannot be read; UsageError when it is no such object
 */
export async function readSettings(options: Settings, configPath: string | undefined): Promise<Settings> {
  const file = configPath === undefined ? {} : await readConfig(configPath);
  const settings: Partial<Record<SettingName, string>> = {};
  for (const name of NAMES) {
    const value =
      options[name] ?? process.env[environmentName(name)] ?? (await readSecret(name)) ?? file[name];
    if (value !== undefined) settings[name] = value;
  }
  return settings;
}

/** `tlsCert` → `CAMBIUM_TLS_CERT` */
function environmentName(name: SettingName): string {
  return `CAMBIUM_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

/** The content of the file that a secret's variable names; its last line end is not part of it. */
async function readSecret(name: SettingName): Promise<string | undefined> {
  const path = SECRETS.includes(name) ? process.env[`${environmentName(name)}_FILE`] : undefined;
  if (path === undefined) return undefined;
  try {
    return (await readFile(path, 'utf8')).replace(/\r?\n$/, '');
  } catch (cause) {
    throw fileError(cause, path, 'read');
  }
}

async function readConfig(path: string): Promise<Settings> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw fileError(cause, path, 'read');
  }
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch (cause) {
    throw new UsageError(`--config ${path}: ${cause instanceof Error ? cause.message : 'no JSON'}`);
  }
  if (typeof config !== 'object' || config === null || Array.isArray(config)) {
    throw new UsageError(`--config ${path}: a JSON object is expected`);
  }
  const settings: Record<string, string> = {};
  for (const [name, value] of Object.entries(config)) {
    if (!(NAMES as readonly string[]).includes(name)) {
      throw new UsageError(`--config ${path}: there is no setting "${name}" (there are ${NAMES.join(', ')})`);
    }
    settings[name] = Array.isArray(value) ? value.join(',') : String(value);
  }
  return settings;
}

/** What a text says; undefined where there is none. Throws what `read` throws. */
export function optional<T>(text: string | undefined, read: (text: string) => T): T | undefined {
  return text === undefined ? undefined : read(text);
}

/** A whole number within bounds. Throws UsageError. */
export function integerOf(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most) {
    throw new UsageError(`--${name} ${text}: a whole number from ${least} to ${most}`);
  }
  return value;
}
