// Its `load` copies what it is given; `parse` makes a view of the file in memory and is the faster way.
import { readFileSync, writeFileSync } from 'node:fs';
import { parse } from 'npyjs';
import { contend } from '../peers/contend.mjs';
import { addElements, total } from './sum.mjs';

await contend(async ({ input, output }) => {
  const { buffer, byteOffset, byteLength } = readFileSync(input);
  const bytes = byteLength === buffer.byteLength ? buffer : buffer.slice(byteOffset, byteOffset + byteLength);
  const sums = new Float64Array(8);
  addElements((await parse(bytes)).data, sums);
  writeFileSync(output, String(total(sums)));
});
