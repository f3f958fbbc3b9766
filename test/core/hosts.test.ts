// Hosts that lack what the core needs: an error that says what, and no half-working state.
import { readFileSync } from 'node:fs';
import { runInNewContext } from 'node:vm';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ABI_VERSION } from '../../assembly/abi.ts';
import { isCambiumError } from '../../src/errors.ts';

type CoreModule = typeof import('../../src/core/core.ts');

const real = globalThis.WebAssembly;
const scalar = readFileSync(new URL('../../dist/core.scalar.wasm', import.meta.url));
const vectors = readFileSync(new URL('../../dist/core.wasm', import.meta.url));
let copies = 0;

/** A copy of core.ts that has compiled nothing yet. */
const freshCore = (): Promise<CoreModule> => import(`../../src/core/core.ts?copy=${copies++}`);

/** Runs `work` while the host's WebAssembly is another one, or none. */
async function withWebAssembly(other: object | undefined, work: () => Promise<void>): Promise<void> {
  Object.defineProperty(globalThis, 'WebAssembly', { value: other, configurable: true, writable: true });
  try {
    await work();
  } finally {
    Object.defineProperty(globalThis, 'WebAssembly', { value: real, configurable: true, writable: true });
  }
}

/** The members of a namespace object are not enumerable. */
const like = (changes: object) =>
  Object.create(
    null,
    Object.getOwnPropertyDescriptors({
      ...Object.fromEntries(
        Object.getOwnPropertyNames(real).map((name) => [name, real[name as keyof typeof real]]),
      ),
      ...changes,
    }),
  );

async function codeOf(work: Promise<unknown>): Promise<string> {
  const outcome = await work.then(
    () => 'done',
    (error: unknown) => error,
  );
  return isCambiumError(outcome) ? outcome.code : String(outcome);
}

const test = suite('hosts');

test('without WebAssembly', async () => {
  const { openCore, openStrategies } = await freshCore();
  await withWebAssembly(undefined, async () => {
    assert.is(await codeOf(openCore()), 'unavailable-webassembly');
    assert.is(await codeOf(openStrategies()), 'unavailable-webassembly');
  });
  (await openCore()).close(); // nothing of it stays
});

test('a policy that forbids to compile', async () => {
  // What a content security policy does in a page, V8 does in such a context.
  const forbidden = runInNewContext('WebAssembly', {}, { contextCodeGeneration: { wasm: false } });
  const { openCore } = await freshCore();
  await withWebAssembly(forbidden, async () => {
    assert.is(await codeOf(openCore()), 'unavailable-compile');
  });
  (await openCore()).close();
});

test('a WebAssembly of before SIMD takes the scalar module, an older one is refused', async () => {
  const compiled: Buffer[] = [];
  const compile = (bytes: Uint8Array<ArrayBuffer>) => {
    compiled.push(Buffer.from(bytes));
    return real.compile(bytes);
  };
  for (const [validate, expected] of [
    [real.validate, vectors],
    [() => false, scalar],
  ] as const) {
    const { openCore } = await freshCore();
    await withWebAssembly(like({ compile, validate }), async () => (await openCore()).close());
    assert.ok(compiled.pop()!.equals(expected));
  }
  const { openCore } = await freshCore();
  const tooOld = like({
    compile: () => Promise.reject(new real.CompileError('on purpose')),
    validate: () => false,
  });
  await withWebAssembly(tooOld, async () => assert.is(await codeOf(openCore()), 'unavailable-webassembly'));
});

test('memory that is refused, at the instance and for the arena', async () => {
  const { openCore } = await freshCore();
  const noMemory = like({ instantiate: () => Promise.reject(new RangeError('on purpose')) });
  await withWebAssembly(noMemory, async () => assert.is(await codeOf(openCore()), 'unavailable-memory'));
  assert.is(await codeOf(openCore(5e9)), 'unavailable-memory');
  (await openCore()).close();
});

test('a module of another version', async () => {
  const { openCore } = await freshCore();
  const other = like({
    instantiate: async (module: WebAssembly.Module) => {
      const { exports } = await real.instantiate(module, {});
      return { exports: { ...exports, abiVersion: () => ABI_VERSION + 1 } };
    },
  });
  await withWebAssembly(other, async () => assert.is(await codeOf(openCore()), 'unavailable-abi'));
  (await openCore()).close();
});

test.run();
