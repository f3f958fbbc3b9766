import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import commonjs from '@rollup/plugin-commonjs';
import json from '@rollup/plugin-json';
import { nodeResolve } from '@rollup/plugin-node-resolve';
import dts from 'rollup-plugin-dts';
import esbuild from 'rollup-plugin-esbuild';
import license from 'rollup-plugin-license';
import { minify } from 'terser';

const { dependencies, peerDependencies } = JSON.parse(
  readFileSync(new URL('package.json', import.meta.url), 'utf8'),
);

/** Packages that stay imports: what a plain install brings along, what is optional, and what only the demo uses. */
const external = [
  ...Object.keys(dependencies),
  ...Object.keys(peerDependencies ?? {}),
  'mnist',
  /^@tensorflow\//,
  /^node:/,
].map((name) => (typeof name === 'string' ? new RegExp(`^${name}(/|$)`) : name));

const isExternal = (id) => external.some((pattern) => pattern.test(id));
const ts = esbuild({ target: 'es2022', tsconfig: 'tsconfig.json' });

/** The bytes of the core's modules are chunks of their own, so that code and core can be weighed (and cached) apart. */
const ownChunk = (id) => {
  if (id.endsWith('/core/wasm.ts')) return 'core-wasm';
  return /\/core\/(.*-wasm)\.ts$/.exec(id)?.[1];
};

/**
 * In Node the engine is one file. Each start of a thread opens all files that it imports at once, and a process may have few
 * descriptors beside its inputs.
 */
const nodeChunk = (id) =>
  ownChunk(id) ??
  (/\/src\/(?:errors\.ts|(?:aggregate|core|formats|tensor)\/)/.test(id) ? 'engine' : undefined);

/**
 * Chunks of the browser door, each with all that its entries load at once and no chunk before it has. What is loaded when it is
 * needed keeps chunks of its own. So a bundler drops what a page does not use, and what it keeps stays together.
 */
const SUBJECTS = [
  ['formats', ['formats/open', 'formats/read', 'formats/write', 'formats/encode', 'aggregate/packed-errors']],
  ['aggregate', ['aggregate/average', 'aggregate/aggregation']],
  ['jobs', ['browser/pool', 'browser/aggregate-blobs']],
  ['client', ['client/client']],
];

const source = (name) => fileURLToPath(new URL(`src/${name}.ts`, import.meta.url));

function subjectOf(id, { getModuleInfo }) {
  const isIn = (entries) => {
    const seen = new Set(entries.map(source));
    for (const from of seen) {
      if (from === id) return true;
      for (const imported of getModuleInfo(from)?.importedIds ?? []) seen.add(imported);
    }
    return false;
  };
  if (id.includes('/node_modules/ky/')) return 'ky';
  return ownChunk(id) ?? SUBJECTS.find(([, entries]) => isIn(entries))?.[0];
}

/** Names of private members and locals are shortened, syntax is that of the target; nothing about meaning is assumed. */
const terser = {
  name: 'terser',
  async renderChunk(code) {
    const done = await minify(code, {
      module: true,
      ecma: 2022,
      compress: { passes: 3, keep_infinity: true },
    });
    return { code: done.code, map: null };
  },
};

/** Some of the server's bundled libraries are CommonJS and look at `require` while they run. */
const REQUIRE = `import { createRequire } from 'node:module';
const require = createRequire(import.meta.url);`;

/** What stands at the begin of a built file. */
function bannerOf({ name, moduleIds }) {
  const shebang = name === 'cli' ? '#!/usr/bin/env node\n' : '';
  return shebang + (moduleIds.some((id) => id.includes('node_modules')) ? REQUIRE : '');
}

/** The bundled libraries ask that their notices travel along. */
const licences = (file) => license({ thirdParty: { output: `dist/${file}` } });

/** Small hosts may lack TextEncoder and TextDecoder: modules that name them import ours, which prefer the host's. */
const textCoders = {
  name: 'text-coders',
  transform(code, id) {
    const names = ['TextDecoder', 'TextEncoder'].filter((name) => code.includes(`new ${name}(`));
    if (names.length === 0 || id.endsWith('/text-coders.ts')) return null;
    const path = fileURLToPath(new URL('src/tensor/text-coders.ts', import.meta.url));
    return { code: `import { ${names.join(', ')} } from ${JSON.stringify(path)};\n${code}`, map: null };
  },
};

/** @type {import('rollup').RollupOptions[]} */
export default [
  {
    // Node: the library, the command line and the files that run in workers and child processes share their chunks.
    input: {
      index: 'src/index.ts',
      tensorflow: 'src/tensorflow.ts',
      cli: 'src/cli.ts',
      worker: 'src/node/worker.ts',
      lane: 'src/node/lane.ts',
      'demo-leaf': 'src/cli/demo/leaf.ts',
    },
    output: {
      dir: 'dist',
      format: 'esm',
      chunkFileNames: 'chunks/[name]-[hash].js',
      manualChunks: nodeChunk,
      banner: bannerOf,
    },
    external: isExternal,
    plugins: [
      nodeResolve({ preferBuiltins: true, exportConditions: ['node'] }),
      commonjs(),
      json(),
      ts,
      licences('THIRD-PARTY-LICENSES.txt'),
    ],
    onwarn: silenceLibraries,
  },
  {
    // Pages may load these files as they are, so nothing in them is imported by a bare name.
    input: {
      browser: 'src/browser.ts',
      'browser-worker': 'src/browser/worker.ts',
      'browser-tensorflow': 'src/tensorflow.ts',
    },
    // Of the page's own: it may give the library instead.
    external: ['@tensorflow/tfjs-core'],
    output: {
      dir: 'dist',
      format: 'esm',
      // All in one folder: whichever of them starts the worker finds it beside itself.
      chunkFileNames: 'browser-[name].js',
      manualChunks: subjectOf,
      // Else chunks name those that their imports import, which bundlers warn of: an import of nothing, without effects.
      hoistTransitiveImports: false,
    },
    plugins: [nodeResolve({ browser: true }), ts, terser, licences('THIRD-PARTY-LICENSES.browser.txt')],
  },
  {
    // One file without imports, the core in it.
    input: { edge: 'src/edge.ts' },
    output: { dir: 'dist', format: 'esm', inlineDynamicImports: true },
    plugins: [
      nodeResolve({ browser: true }),
      ts,
      textCoders,
      terser,
      licences('THIRD-PARTY-LICENSES.edge.txt'),
    ],
  },
  {
    input: {
      index: 'src/index.ts',
      browser: 'src/browser.ts',
      edge: 'src/edge.ts',
      tensorflow: 'src/tensorflow.ts',
    },
    output: { dir: 'dist', format: 'esm', chunkFileNames: 'chunks/types-[name].d.ts' },
    external: isExternal,
    plugins: [dts({ tsconfig: 'tsconfig.json' })],
  },
];

/** Bundled libraries warn about themselves; warnings about our own files stay. */
function silenceLibraries(warning, warn) {
  if (warning.id?.includes('node_modules') || warning.ids?.every((id) => id.includes('node_modules'))) return;
  if (warning.code === 'THIS_IS_UNDEFINED') return;
  warn(warning);
}
