import { Random } from '../helpers/random.ts';
import { check } from './check.ts';
import { mutate } from './mutate.ts';
import type { Target } from './targets.ts';

/** Inputs that are kept to make others from. */
const MAX_CORPUS = 4_000;

/** An input for which something does not hold. */
interface Finding {
  readonly bytes: Uint8Array;
  readonly error: unknown;
  /** Which input of the run it was, from 0. */
  readonly run: number;
}

/** Makes inputs of one target and checks them; the same seed and corpus give the same inputs. */
export class Fuzzer {
  readonly target: Target;
  readonly findings: Finding[] = [];
  runs = 0;
  valid = 0;
  /** The most memory for each byte of an input of a kilobyte or more. */
  memory = 0;
  readonly #random: Random;
  readonly #corpus: Uint8Array[] = [];
  /** Those that are valid: changes of them get further. */
  readonly #good: Uint8Array[] = [];
  readonly #seen = new Set<string>();
  readonly #failures = new Set<string>();

  constructor(target: Target, seed: number) {
    this.target = target;
    this.#random = new Random(seed);
  }

  /** Different things that inputs did. */
  get outcomes(): number {
    return this.#seen.size;
  }

  get corpus(): number {
    return this.#corpus.length;
  }

  /** Checks an input as it is, and keeps it to make others from. */
  async add(bytes: Uint8Array): Promise<void> {
    if (!(await this.#run(bytes))) this.#corpus.push(bytes);
  }

  /** Makes one input and checks it; gives it when it did something new. */
  async step(): Promise<Uint8Array | null> {
    const random = this.#random;
    const { target } = this;
    const from = random.pick(random.uniform() < 0.6 && this.#good.length > 0 ? this.#good : this.#corpus);
    const prefix = random.uniform() < 0.9 ? Math.min(target.prefix, from.byteLength) : 0;
    const changed = mutate(random, from.subarray(prefix), target.words, this.#corpus);
    const bytes = new Uint8Array(Buffer.concat([from.subarray(0, prefix), changed]));
    if (random.uniform() < 0.7) target.repair?.(bytes);
    return (await this.#run(bytes)) ? bytes : null;
  }

  async #run(bytes: Uint8Array): Promise<boolean> {
    const run = this.runs++;
    try {
      const { signature, isValid, memory } = await check(bytes);
      if (isValid) this.valid++;
      if (bytes.byteLength >= 1_024) this.memory = Math.max(this.memory, memory);
      if (this.#seen.has(signature)) return false;
      this.#seen.add(signature);
      if (this.#corpus.length < MAX_CORPUS) this.#corpus.push(bytes);
      if (isValid && this.#good.length < MAX_CORPUS) this.#good.push(bytes);
      return true;
    } catch (error) {
      // One input of each failure is enough.
      const key = error instanceof Error ? String(error.stack).replace(/\d+/g, '#') : String(error);
      if (!this.#failures.has(key)) this.findings.push({ bytes, error, run });
      this.#failures.add(key);
      return false;
    }
  }
}
