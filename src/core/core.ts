import { demangle } from '@assemblyscript/loader';
import { ABI_VERSION } from '../../assembly/abi.ts';
import { UnavailableError } from '../errors.ts';
import { decodeBase64 } from './base64.ts';
import type { CoreExports, FoldExports, StrategyExports } from './exports.ts';

/** Bytes of a page of linear memory. */
const PAGE = 65_536;

/** Every vector load and the widest element fit this alignment. */
const ALIGNMENT = 16;

/** Gives the bytes of a module in base64: of the build with SIMD, or of the one of the same sources without. */
type LoadBytes = (simd: boolean) => Promise<string>;

export type CoreName = 'core' | 'strategies';

/** Compiles the build with SIMD of a module in a way of its own; null leaves it at the bytes in this library. */
type Compiler = (name: CoreName) => Promise<WebAssembly.Module | null>;

let compiler: Compiler | undefined;

/** Lets a host have the modules from elsewhere. What comes is checked for its ABI like the bytes in this library. */
export function compileCoreBy(own: Compiler): void {
  compiler = own;
}

/** A module of the core: compiled once per process (page, worker), its instances kept for later jobs. */
class CoreModule<E extends FoldExports> {
  readonly #name: CoreName;
  readonly #load: LoadBytes;
  #compiled: Promise<WebAssembly.Module> | undefined;
  /** Instances that wait for their next job: to make one takes longer than many a job. */
  readonly #idle: Core<E>[] = [];

  constructor(name: CoreName, load: LoadBytes) {
    this.#name = name;
    this.#load = load;
  }

  /** An instance that can give `arenaBytes`, which `Core.close` brings back. */
  async open(arenaBytes: number): Promise<Core<E>> {
    const position = this.#idle.findIndex((core) => core.free >= arenaBytes);
    if (position >= 0) return this.#idle.splice(position, 1)[0]!.reopen(); // found
    this.#compiled ??= compile(this.#name, this.#load).catch((error: unknown) => {
      this.#compiled = undefined; // a chunk that did not arrive, or memory that was short, may be there next time
      throw error;
    });
    const module = await this.#compiled;
    const { exports } = await WebAssembly.instantiate(module).catch((cause: unknown) => {
      throw new UnavailableError('unavailable-memory', 'no memory for an instance of the core', { cause });
    });
    // Nothing of the loader but its names: the core has no managed objects to lift. They are typed by hand in exports.ts.
    const core = new Core(demangle(exports) as unknown as E, arenaBytes, this.#keep);
    const version = core.exports.abiVersion();
    if (version !== ABI_VERSION) {
      throw new UnavailableError(
        'unavailable-abi',
        `the core speaks ABI ${version}, this library needs ${ABI_VERSION}`,
      );
    }
    return core;
  }

  readonly #keep = (core: Core<E>): void => {
    if (this.#idle.length < MAX_IDLE && core.byteLength <= MAX_IDLE_BYTES) this.#idle.push(core);
  };
}

/** As many as one job uses at a time (a walk beside a fold), and no more memory than that. */
const MAX_IDLE = 2;
const MAX_IDLE_BYTES = 16 << 20;

/** A module whose only function makes a vector: what validates it has SIMD. */
const WITH_SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 9, 1, 7, 0, 65, 0, 253, 17, 26, 11,
];

async function compile(name: CoreName, load: LoadBytes): Promise<WebAssembly.Module> {
  if (typeof WebAssembly === 'undefined') {
    throw new UnavailableError(
      'unavailable-webassembly',
      'this host has no WebAssembly, which the core needs',
    );
  }
  const simd = WebAssembly.validate(Uint8Array.from(WITH_SIMD));
  const own = simd ? await compiler?.(name) : undefined;
  if (own != null) return own;
  const bytes = decodeBase64(await load(simd));
  try {
    return await WebAssembly.compile(bytes);
  } catch (cause) {
    if (WebAssembly.validate(bytes)) {
      throw new UnavailableError(
        'unavailable-compile',
        'this host forbids to compile WebAssembly (a content security policy must allow "wasm-unsafe-eval"), or has no memory for it',
        { cause },
      );
    }
    throw new UnavailableError(
      'unavailable-webassembly',
      'the WebAssembly of this host is too old for the core: it lacks sign extension, conversions without traps or bulk memory',
      { cause },
    );
  }
}

const core = new CoreModule<CoreExports>('core', async (simd) =>
  simd
    ? (await import('./wasm.ts')).CORE_WASM_BASE64
    : (await import('./scalar-wasm.ts')).CORE_SCALAR_WASM_BASE64,
);
const strategies = new CoreModule<StrategyExports>('strategies', async (simd) =>
  simd
    ? (await import('./strategies-wasm.ts')).STRATEGIES_WASM_BASE64
    : (await import('./strategies-scalar-wasm.ts')).STRATEGIES_SCALAR_WASM_BASE64,
);

/**
 * One instance of the core with its arena: a job (one aggregation, one walk) owns one for its whole life, so nothing of
 * another job can come between, also across awaits. The memory grows in `openCore` only; views stay valid after that.
 */
export class Core<E extends FoldExports = CoreExports> {
  readonly exports: E;
  readonly #memory: ArrayBufferLike;
  readonly #base: number;
  #top: number;
  /** End of what was ever taken. */
  #reached: number;
  #isOpen = true;
  readonly #keep: () => void;

  /**
   * @param arenaBytes how much `take` must be able to give in all
   * @param keep takes the instance back when its job has ended
   */
  constructor(exports: E, arenaBytes: number, keep: (core: Core<E>) => void) {
    this.exports = exports;
    this.#keep = () => keep(this);
    this.#base = align(exports.arenaBase() >>> 0);
    this.#top = this.#base;
    this.#reached = this.#base;
    const missing = this.#top + arenaBytes - exports.memory.buffer.byteLength;
    if (missing > 0) {
      try {
        exports.memory.grow(Math.ceil(missing / PAGE));
      } catch (cause) {
        throw new UnavailableError('unavailable-memory', `no memory for an arena of ${arenaBytes} bytes`, {
          cause,
        });
      }
    }
    this.#memory = exports.memory.buffer;
  }

  /** Bytes that `take` can still give. */
  get free(): number {
    return this.#memory.byteLength - this.#top;
  }

  /** Takes `byteLength` bytes of the arena for the rest of the job (or of the `scope`), aligned to 16 bytes. */
  take(byteLength: number): number {
    const address = this.#top;
    const top = align(address + byteLength);
    if (top > this.#memory.byteLength) {
      throw new RangeError(`the arena has ${this.free} bytes left, not ${byteLength}`);
    }
    this.#top = top;
    this.#reached = Math.max(this.#reached, top);
    return address;
  }

  /** Runs `work` and gives back what it took, also when it throws. Synchronous on purpose: see the class. */
  scope<T>(work: () => T): T {
    const top = this.#top;
    try {
      return work();
    } finally {
      this.#top = top;
    }
  }

  /**
   * Ends the job. Neither the core nor a view of it may be used any more: the instance is wiped and given to the next
   * job. Harmless when repeated.
   */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.bytes(this.#base, this.#reached - this.#base).fill(0);
    this.#top = this.#base;
    this.#reached = this.#base;
    this.#keep();
  }

  /** Takes a closed instance for another job. */
  reopen(): this {
    this.#isOpen = true;
    return this;
  }

  /** Bytes of the instance's memory. */
  get byteLength(): number {
    return this.#memory.byteLength;
  }

  /** The bytes at an address of the arena. */
  bytes(address: number, byteLength: number): Uint8Array {
    return new Uint8Array(this.#memory as ArrayBuffer, address, byteLength); // no shared memory: see asconfig.json
  }

  /** The same as a DataView. */
  view(address: number, byteLength: number): DataView {
    return new DataView(this.#memory as ArrayBuffer, address, byteLength); // as above
  }
}

function align(address: number): number {
  return Math.ceil(address / ALIGNMENT) * ALIGNMENT;
}

/**
 * Opens an instance of the core's first module, codecs and the mean; the caller closes it.
 *
 * @param arenaBytes what the job will take in all, in bytes
 * @throws UnavailableError `unavailable-webassembly`, `unavailable-compile` (forbidden), `unavailable-memory`, or
 *   `unavailable-abi` when code and module are of different versions
 */
export function openCore(arenaBytes = 1 << 20): Promise<Core> {
  return core.open(arenaBytes);
}

/** The same for the second module, the mean and every other rule. It is loaded when it is first asked for. */
export function openStrategies(arenaBytes = 1 << 20): Promise<Core<StrategyExports>> {
  return strategies.open(arenaBytes);
}
