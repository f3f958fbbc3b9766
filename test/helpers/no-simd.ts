// Makes this process a host without SIMD (`node --import tsx --import …/no-simd.ts`), and sees to it that no module of the
// core is compiled but the scalar ones.
import { readFileSync } from 'node:fs';

const vectorised = ['core', 'strategies'].map((name) =>
  readFileSync(new URL(`../../dist/${name}.wasm`, import.meta.url)),
);
const { compile } = WebAssembly;

WebAssembly.validate = () => false;
WebAssembly.compile = async (bytes) => {
  const given = Buffer.from(bytes as Uint8Array<ArrayBuffer>); // all that the core hands over
  if (vectorised.some((module) => module.equals(given))) throw new Error('this module needs SIMD');
  return await compile(bytes);
};
