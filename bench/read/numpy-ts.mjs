import { writeFileSync } from 'node:fs';
import { loadNpy } from 'numpy-ts';
import { contend } from '../peers/contend.mjs';
import { addElements, total } from './sum.mjs';

await contend(async ({ input, output }) => {
  const sums = new Float64Array(8);
  addElements((await loadNpy(input)).data, sums);
  writeFileSync(output, String(total(sums)));
});
