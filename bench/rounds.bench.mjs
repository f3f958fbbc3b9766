// What the server adds to an aggregation. Two figures, or one of them: node bench/run.mjs rounds, or
// node bench/rounds.bench.mjs large|small
//
// - ten updates of 100 MB: from the last byte of the last one, as it leaves its sender, to the notice at all ten leaves,
//   beside `cambium aggregate` over the same files, with the same rule, format and number of threads, in the same run;
// - ten updates of 1 kB: a round as a whole, from the start of the first upload to the notice at the last of ten leaves.
//   Its overhead is the whole less the seconds that the aggregation itself took, and nothing else: the requests, what the
//   leaves work and every wait for the disk are in it. What this process, which plays the leaves, used of a processor is
//   told beside it, and what is left of the overhead without it: the server's share. Where uploads come all at once, both
//   work at the same time, so that this share is the least that it can be.
//
// Uploads come one after the other, or all at once; both are measured. Every round has the same files, each from another
// leaf than in the round before: so it is a new update, and the aggregation must have the bytes that the command wrote.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeInputs } from './aggregate/inputs.mjs';
import { benchFolder, printGoals } from './contenders.mjs';
import { median, ms, printHeader, printTable } from './report.mjs';
import { openFederation } from './rounds/federation.mjs';

const LEAVES = 10;
const THREADS = 2;
const LARGE_ROUNDS = 7;
const SMALL_ROUNDS = 100;
const CLI = fileURLToPath(new URL('../dist/cli.js', import.meta.url));
const folder = benchFolder();

const part = process.argv[2];

if (part !== 'small') await measureLarge();
if (part !== 'large') await measureSmall();

async function measureLarge() {
  const place = join(folder, 'large');
  mkdirSync(place);
  const inputs = await writeInputs(place, LEAVES, [[25_000_000]]);
  const files = inputs.map(({ path }) => readFileSync(path));
  const federation = await openFederation(place, LEAVES);
  const times = { command: [], whole: [], after: [], atOnce: [] };
  try {
    // One round of each way warms up.
    for (let round = 0; round <= LARGE_ROUNDS; round++) {
      const command = aggregateByCommand(inputs, place);
      const after = await playRound(federation, files, 2 * round, false);
      const atOnce = await playRound(federation, files, 2 * round + 1, true);
      await checkDigests(federation, command.sha256, 2);
      if (round === 0) continue;
      times.command.push(command.seconds);
      times.whole.push(command.wholeSeconds);
      times.after.push(after.fromLastByte);
      times.atOnce.push(atOnce.fromLastByte);
    }
  } finally {
    await federation.close();
  }
  printHeader(`${LEAVES} updates of 100 MB, from the last byte to the notice at all leaves`, [
    `${LARGE_ROUNDS} rounds, ${THREADS} threads; every aggregation has the bytes that the command wrote`,
  ]);
  const base = median(times.command);
  printTable(
    ['', 'median ms', 'min ms', '× command'],
    [
      ['cambium aggregate, its own count', times.command],
      ['cambium aggregate, process and all', times.whole],
      ['server, uploads one after the other', times.after],
      ['server, uploads all at once', times.atOnce],
    ].map(([name, seconds]) => [
      name,
      ms(median(seconds)),
      ms(Math.min(...seconds)),
      (median(seconds) / base).toFixed(2),
    ]),
  );
  console.log();
  printGoals([
    ['last byte to notice / the whole command', median(times.after) / median(times.whole), 'at most', 2],
    ['the same with uploads at once', median(times.atOnce) / median(times.whole), 'at most', 2],
    ['last byte to notice / the count of the command itself', median(times.after) / base, 'at most', 2],
    ['the same with uploads at once', median(times.atOnce) / base, 'at most', 2],
  ]);
}

async function measureSmall() {
  const place = join(folder, 'small');
  mkdirSync(place);
  const inputs = await writeInputs(place, LEAVES, [[200]]);
  const files = inputs.map(({ path }) => readFileSync(path));
  const federation = await openFederation(place, LEAVES);
  const rounds = { after: [], atOnce: [] };
  try {
    const { sha256 } = aggregateByCommand(inputs, place);
    for (let round = 0; round < 10; round++) await playRound(federation, files, round, round % 2 === 1);
    for (let round = 0; round < 2 * SMALL_ROUNDS; round++) {
      const isAtOnce = round % 2 === 1;
      rounds[isAtOnce ? 'atOnce' : 'after'].push(await playRound(federation, files, round, isAtOnce));
    }
    const done = await federation.rounds();
    await checkDigests(federation, sha256, done.length);
    for (const [i, round] of done
      .slice(0, 2 * SMALL_ROUNDS)
      .reverse()
      .entries()) {
      rounds[i % 2 === 1 ? 'atOnce' : 'after'][i >> 1].aggregation = round.aggregation_seconds;
    }
  } finally {
    await federation.close();
  }
  printHeader(`Rounds of ${LEAVES} leaves with a model of ${files[0].length} bytes`, [
    `${SMALL_ROUNDS} rounds; every aggregation has the bytes that the command wrote`,
    'whole: start of the first upload to the notice at the last leaf; overhead: whole less the aggregation itself',
    "leaves: processor time of the leaves; server's share: overhead less that",
  ]);
  const overhead = ({ whole, aggregation }) => whole - aggregation;
  const row = (name, list) => {
    const middle = (of) => ms(median(list.map(of)));
    return [
      name,
      middle(({ whole }) => whole),
      middle(({ fromLastByte }) => fromLastByte),
      middle(({ fromReceipt }) => fromReceipt),
      middle(({ aggregation }) => aggregation),
      middle(({ leaves }) => leaves),
      middle((round) => overhead(round) - round.leaves),
      middle(overhead),
      ms(Math.min(...list.map(overhead))),
    ];
  };
  printTable(
    [
      'median ms',
      'whole',
      'last byte to notice',
      'receipt to notice',
      'aggregation',
      'leaves',
      "server's share",
      'overhead',
      'min overhead',
    ],
    [row('uploads one after the other', rounds.after), row('uploads all at once', rounds.atOnce)],
  );
  console.log();
  printGoals([
    ['overhead in ms, uploads all at once', 1000 * median(rounds.atOnce.map(overhead)), 'at most', 20],
    ['overhead in ms, one after the other', 1000 * median(rounds.after.map(overhead)), 'at most', 20],
  ]);
}

/** Seconds of a round. Leaf i brings another file in each round. */
async function playRound({ leaves }, files, round, isAtOnce) {
  const heard = Promise.all(leaves.map((leaf) => leaf.notice()));
  const before = process.cpuUsage();
  const begunAt = performance.now();
  const receipts = [];
  for (const [i, leaf] of leaves.entries()) {
    const receipt = leaf.upload(files[(i + round) % files.length]);
    receipts.push(isAtOnce ? receipt : await receipt);
  }
  const answered = await Promise.all(receipts);
  const heardAt = Math.max(...(await heard));
  const { user, system } = process.cpuUsage(before);
  return {
    leaves: (user + system) / 1e6,
    whole: (heardAt - begunAt) / 1000,
    fromLastByte: (heardAt - Math.max(...answered.map(({ lastByteAt }) => lastByteAt))) / 1000,
    fromReceipt: (heardAt - Math.max(...answered.map(({ receiptAt }) => receiptAt))) / 1000,
  };
}

function aggregateByCommand(inputs, place) {
  const begunAt = performance.now();
  const paths = inputs.map(({ path }) => path);
  const output = join(place, 'out.npy');
  const how = ['--format', 'npy-object', '--threads', THREADS, '--json', '-o', output];
  const told = execFileSync(process.execPath, [CLI, 'aggregate', ...paths, ...how], { encoding: 'utf8' });
  const { seconds, sha256 } = JSON.parse(told);
  return { seconds, sha256, wholeSeconds: (performance.now() - begunAt) / 1000 };
}

async function checkDigests(federation, sha256, count) {
  for (const { aggregation_id } of (await federation.rounds()).slice(0, count)) {
    if ((await federation.digest(aggregation_id)) !== sha256) {
      throw new Error(`aggregation ${aggregation_id} differs from the command's file`);
    }
  }
}
