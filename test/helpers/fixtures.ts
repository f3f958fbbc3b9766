import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const FOLDER = fileURLToPath(new URL('../fixtures/', import.meta.url));

/** One array of a fixture: digest and data are of the elements in C order, little endian. */
interface FixtureArray {
  readonly name: string | null;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly fortran_order?: boolean;
  readonly nbytes: number;
  readonly sha256: string;
}

/** What must become of a fixture. */
export interface Fixture {
  readonly file: string;
  readonly bytes: number;
  readonly outcome: 'ok' | 'error';
  /** Codes, separated by bars. */
  readonly error?: string;
  readonly arrays?: readonly FixtureArray[];
  readonly arrays_compact?: {
    readonly count: number;
    readonly dtype: string;
    readonly shape: readonly number[];
    readonly concat_sha256: string;
  };
  readonly weight?: { readonly kind: 'int' | 'float'; readonly value: string };
  readonly payload_offsets?: readonly (number | null)[];
}

/** All fixtures of weight files, good and bad. */
export function fixtures(): readonly Fixture[] {
  return (JSON.parse(readFileSync(`${FOLDER}manifest.json`, 'utf8')) as { files: Fixture[] }).files;
}

/** The bytes of a fixture, in memory of their own. */
export function fixtureBytes(file: string): Uint8Array {
  return new Uint8Array(readFileSync(FOLDER + file));
}

export { FOLDER as FIXTURES };
