// The kernel of Krum, squared distances of all pairs, on blocks in the arena and one thread, beside what NumPy does with
// the same numbers: promote and subtract two whole models, square and sum, pair by pair.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { instantiate } from '@assemblyscript/loader';
import { median, ms, printHeader, printTable } from './report.mjs';

const ROUNDS = 7;
const FLOAT32 = 12; // DTYPE_FLOAT32, CHUNK in assembly/abi.ts
const CHUNK = 4096;
const PAGE = 65_536;
const PYTHON = process.env.CAMBIUM_PYTHON ?? '/usr/bin/python3';

/** Inputs and elements of each: one case fits the cache, the others do not. */
const CASES = [
  [10, 4 * CHUNK],
  [10, 512 * CHUNK],
  [40, 64 * CHUNK],
];

const NUMPY = `
import sys, time, json
import numpy as np
k, n, rounds = map(int, sys.argv[1:])
x = np.frombuffer(sys.stdin.buffer.read(), np.float32).reshape(k, n)
def pairs(add):
    sums = []
    for a in range(k):
        for b in range(a + 1, k):
            d = x[a].astype(np.float64) - x[b]
            sums.append(float(add(d)))
    return sums
sums = pairs(lambda d: np.sum(d * d)) # pairwise summation: the product below is 1e-11 off
times = []
for _ in range(rounds):
    start = time.perf_counter()
    pairs(lambda d: d @ d)
    times.append(time.perf_counter() - start)
print(json.dumps([times, sums]))
`;

const module = await WebAssembly.compile(readFileSync(new URL('../dist/strategies.wasm', import.meta.url)));

let state = 20261125;

/** At least 0 and below 1, always the same numbers. */
function uniform() {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return state / 2 ** 32;
}

async function measure([k, n]) {
  const { exports: core } = await instantiate(module);
  const { memory } = core;
  const width = (k * (k - 1)) / 2;
  const chunks = Math.ceil(n / CHUNK);
  const table = Math.ceil(core.arenaBase() / 64) * 64;
  const out = table + Math.ceil(k / 16) * 64;
  const first = out + Math.ceil((width * chunks) / 8) * 64;
  const stride = 4 * n + 64;
  memory.grow(Math.max(0, Math.ceil((first + k * stride - memory.buffer.byteLength) / PAGE)));
  const all = Buffer.alloc(4 * n * k);
  for (let j = 0; j < k; j++) {
    new Uint32Array(memory.buffer, table, k)[j] = first + j * stride;
    const block = new Float32Array(memory.buffer, first + j * stride, n).map(() => uniform() - 0.5);
    new Float32Array(memory.buffer, first + j * stride, n).set(block);
    all.set(new Uint8Array(block.buffer), 4 * n * j);
  }
  const run = () => core.pairwiseDistances(FLOAT32, table, k, n, out);
  run();
  const ours = Array.from({ length: ROUNDS }, () => {
    const startedAt = performance.now();
    run();
    return (performance.now() - startedAt) / 1000;
  });

  const peer = spawnSync(PYTHON, ['-c', NUMPY, k, n, ROUNDS].map(String), { input: all, maxBuffer: 2 ** 28 });
  if (peer.status !== 0) throw new Error(`NumPy failed: ${peer.stderr}`);
  const [theirs, expected] = JSON.parse(`${peer.stdout}`);
  const sums = new Float64Array(memory.buffer, out, width * chunks);
  for (let pair = 0; pair < width; pair++) {
    let sum = 0;
    for (let c = 0; c < chunks; c++) sum += sums[c * width + pair];
    if (!(Math.abs(sum - expected[pair]) <= 1e-12 * expected[pair])) {
      throw new Error(`pair ${pair} of ${k}: ${sum}, NumPy has ${expected[pair]}`);
    }
  }
  return [
    `${k} × ${n}`,
    ...[ours, theirs].map((times) => `${ms(median(times))} / ${ms(Math.min(...times))}`),
    ((width * n) / median(ours) / 1e9).toFixed(2),
    (median(ours) / median(theirs)).toFixed(3),
  ];
}

const rows = [];
for (const one of CASES) rows.push(await measure(one));
printHeader('Squared distances of all pairs, float32, blocks in the arena, one thread', [
  `${ROUNDS} rounds; ms, median / best; sums agree to 1e-12`,
]);
printTable(['inputs', 'Cambium', 'NumPy', 'G pair elements/s', 'Cambium / NumPy'], rows);
