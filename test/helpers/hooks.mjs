// How the modules of a suite are found and loaded. What was compiled once for all suites saves each of them a compiler.
import { readFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';

const root = new URL('../../', import.meta.url).href;
const uvu = new URL('uvu.mjs', import.meta.url).href;
const compiled = pathToFileURL(`${process.env.CAMBIUM_COMPILED}/`).href;

export function resolve(name, context, next) {
  if (name === 'uvu' && context.parentURL !== uvu) return { url: uvu, shortCircuit: true };
  if (name === 'kysely') return { url: `${compiled}kysely.js`, format: 'module', shortCircuit: true };
  return next(name, context);
}

export async function load(url, context, next) {
  const path = url.replace(/\?.*/, '');
  if (!path.startsWith(root) || !path.endsWith('.ts')) return next(url, context);
  const source = await readFile(new URL(path.slice(root.length), compiled));
  return { format: 'module', source, shortCircuit: true };
}
