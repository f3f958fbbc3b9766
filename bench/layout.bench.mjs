// Where the tensors of huge weight files are: from the path to the layout, opening and closing the file included. The
// files are sparse, and the few pages that are read are in the page cache. Each layout is compared with what was written.
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeWeights, openFileSource, openWeights } from '../dist/index.js';
import { median, ms, printHeader, printTable } from './report.mjs';

const ROUNDS = 15;
const WARM_UP = 3;

const folder = mkdtempSync(join(tmpdir(), 'cambium-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Names are in order when they are sorted, as .safetensors has them. */
const float32 = (count, shape) =>
  Array.from({ length: count }, (_, i) => ({ name: `layer.${100 + i}`, dtype: 'float32', shape }));

const CASES = [
  { name: '.npy object array, 10 GB', format: 'npy-object', tensors: float32(200, [12_500, 1_000]) },
  { name: '.npz stored, 6 GiB', format: 'npz', tensors: float32(96, [2 ** 12, 2 ** 12]) },
  { name: '.safetensors, 6 GiB', format: 'safetensors', tensors: float32(96, [2 ** 12, 2 ** 12]) },
];

async function measure({ name, format, tensors }) {
  const { byteLength, literals, payloads } = await encodeWeights({ format, weighting: 7, tensors });
  const path = join(folder, format);
  const file = openSync(path, 'w');
  ftruncateSync(file, byteLength);
  for (const { offset, bytes } of literals) writeSync(file, bytes, 0, bytes.byteLength, offset);
  closeSync(file);

  const check = ({ layout }) => {
    const isRight =
      layout.tensors.length === tensors.length &&
      layout.tensors.every(
        (tensor, i) => tensor.name === tensors[i].name && tensor.byteOffset === payloads[i].offset,
      );
    if (!isRight) throw new Error(`${name}: another layout than was written`);
  };
  const blocking = await time(() => openBlocking(path, byteLength), check);
  const pooled = await time(() => openFileSource(path), check);
  return [
    name,
    tensors.length,
    blocking.calls,
    (blocking.bytes / 1024).toFixed(1),
    ms(median(blocking.seconds)),
    ms(Math.min(...blocking.seconds)),
    ms(median(pooled.seconds)),
    ms(Math.min(...pooled.seconds)),
  ];
}

/** A source that reads on the calling thread, like those of the worker threads that examine and average files. */
function openBlocking(path, byteLength) {
  const file = openSync(path, 'r');
  return {
    name: path,
    byteLength,
    readInto: (offset, target) => readSync(file, target, 0, target.byteLength, offset),
    close: () => closeSync(file),
  };
}

/** Seconds of each round behind the warm-up, and what one round reads. */
async function time(open, check) {
  const seconds = [];
  let bytes = 0;
  let calls = 0;
  for (let round = 0; round < WARM_UP + ROUNDS; round++) {
    bytes = 0;
    calls = 0;
    const startedAt = performance.now();
    const source = await open();
    const weights = await openWeights({
      ...source,
      readInto(offset, target) {
        bytes += target.byteLength;
        calls++;
        return source.readInto(offset, target);
      },
    });
    await source.close();
    if (round >= WARM_UP) seconds.push((performance.now() - startedAt) / 1000);
    check(weights);
  }
  return { seconds, bytes, calls };
}

const rows = [];
for (const one of CASES) rows.push(await measure(one));
printHeader('layouts of huge files', [
  `sparse files, what is read is in the page cache; median of ${ROUNDS} rounds after ${WARM_UP} that warm up`,
  'blocking: read on the calling thread, as workers and `cambium inspect` do; pooled: by openFileSource, through the thread pool of Node',
]);
printTable(['file', 'tensors', 'reads', 'KiB read', 'blocking ms', 'min', 'pooled ms', 'min'], rows);
