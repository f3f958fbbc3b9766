// Unpacks into memory that is kept from round to round, by zlib on Node's threads and with its CRC-32, as the command line
// and the server do (src/node/unpacking.ts), then reads the elements there.

import { writeFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { crc32, createInflateRaw } from 'node:zlib';
import { openFileSource, openWeights } from '../../dist/index.js';
import { contend } from '../peers/contend.mjs';
import { addElements, total } from './sum.mjs';

const inflate = (packed) =>
  Readable.from(packed, { objectMode: false }).pipe(createInflateRaw({ chunkSize: 1 << 20 }));
let room = new Uint8Array(0);

/** Scratch room over the same memory in every round. */
function scratch(byteLength) {
  if (room.byteLength < byteLength) room = new Uint8Array(byteLength);
  return {
    name: 'room',
    byteLength,
    readInto(offset, target) {
      target.set(room.subarray(offset, offset + target.byteLength));
      return target.byteLength;
    },
    write: (offset, bytes) => room.set(bytes, offset),
    close() {},
  };
}

await contend(async ({ input, output }) => {
  const source = await openFileSource(input);
  const weights = await openWeights(source);
  const unpacked = await weights.unpack({ scratch, inflate, crc32 });
  const sums = new Float64Array(8);
  const block = new Uint8Array(1 << 20);
  for (const { byteOffset, byteLength } of unpacked.layout.tensors) {
    for (let done = 0; done < byteLength; ) {
      const part = block.subarray(0, Math.min(block.byteLength, byteLength - done));
      done += await unpacked.source.readInto(byteOffset + done, part);
      addElements(new Float32Array(part.buffer, 0, part.byteLength / 4), sums);
    }
  }
  await unpacked.source.close();
  await source.close();
  writeFileSync(output, String(total(sums)));
});
