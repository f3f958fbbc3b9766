import { fileURLToPath } from 'node:url';
import { createContext, runInContext } from 'node:vm';
import { build } from 'esbuild';
import type { aggregate } from '../hosts/aggregate.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The built edge door, and one aggregation through it. */
export type Edge = typeof import('../../src/edge.ts') & { readonly aggregate: typeof aggregate };

/** The edge door as a script, with what it imports. */
export async function bundleEdge(): Promise<{ readonly text: string; readonly imports: readonly unknown[] }> {
  const { outputFiles, metafile } = await build({
    stdin: {
      contents: `export * from './dist/edge.js'; export { aggregate } from './test/hosts/aggregate.mjs';`,
      resolveDir: root,
    },
    absWorkingDir: root,
    bundle: true,
    format: 'iife',
    globalName: 'edge',
    target: 'es2022',
    metafile: true,
    write: false,
  });
  return { text: outputFiles[0]!.text, imports: metafile.inputs['dist/edge.js']!.imports };
}

/** The script in a context that has the language and WebAssembly: no timers, no TextDecoder, no console, no code from text. */
export function openBareContext(text: string, wasm = true): Edge {
  const context = createContext({}, { codeGeneration: { strings: false, wasm } });
  return runInContext(`${text}; edge`, context) as Edge;
}
