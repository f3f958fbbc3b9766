// Reads every input in pieces of 1 MiB into one buffer and writes the size of the output: no mean can be faster on one
// thread.
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { contend } from './contender.mjs';

const piece = new Uint8Array(1 << 20);

await contend(({ inputs, output }) => {
  for (const { path } of inputs) {
    const file = openSync(path, 'r');
    while (readSync(file, piece, 0, piece.length, null) > 0);
    closeSync(file);
  }
  const file = openSync(output, 'w');
  for (let left = inputs[0].byteLength; left > 0; left -= piece.length) {
    writeSync(file, piece, 0, Math.min(piece.length, left));
  }
  closeSync(file);
});
