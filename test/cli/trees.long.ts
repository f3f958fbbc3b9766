/**
 * Trees as people run them: every server, leaf, relay and operator is the built command line, and the file at the root is that
 * of `cambium aggregate` over all ten update files, byte for byte: on one server, and over three levels of servers whose
 * relays and servers are killed on the way.
 */
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { BranchBody, RoundBody, TreeBody } from '../../src/wire/cambium.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { JoinedLeaf } from '../helpers/joined.ts';
import { freePorts } from '../helpers/loopback.ts';
import { Random } from '../helpers/random.ts';
import { BRANCHES, cambium, writeUpdates } from './trees.ts';

/** Deaths of each relay, and the one after which its server below dies too. */
const DEATHS = 5;
const SERVER_DEATH = 3;
const ROUNDS = 2;

const test = suite('trees from the command line');
const folder = mkdtempSync(join(tmpdir(), 'cambium-trees-'));
const random = new Random(7);
const running = new Set<Site | JoinedLeaf>();
/** By round: what one aggregation of all ten files gives. */
const flat = new Map<number, Buffer>();

test.before(async () => {
  for (let round = 1; round <= ROUNDS; round++) {
    const place = join(folder, `round-${round}`);
    mkdirSync(place);
    const files = await writeUpdates(place, round, 150_000);
    await cambium('aggregate', ...files.flat(), '-o', join(place, 'flat.npy'));
    flat.set(round, readFileSync(join(place, 'flat.npy')));
  }
});
test.after(async () => {
  for (const process of running) await process.end();
  rmSync(folder, { recursive: true });
});

/** A server as a user runs it; it can be killed and comes back under its address. */
class Site {
  readonly data = mkdtempSync(join(folder, 'site-'));
  tree = '';
  #port = 0;
  #process!: JoinedLeaf;
  #restarting = Promise.resolve();

  static async start(): Promise<Site> {
    const site = new Site();
    running.add(site);
    [site.#port = 0] = await freePorts(1);
    await site.#serve();
    site.tree = (await site.operate<TreeBody>('tree', 'create', 't')).id;
    return site;
  }

  async #serve(): Promise<void> {
    this.#process = new JoinedLeaf(['--data', this.data, '--port', String(this.#port)], process.env, 'serve');
    await this.#process.printed(1);
    assert.type(this.#process.lines[0]!.url, 'string', this.#process.stderr);
  }

  /** One after the other: several relays ask for it, and a data directory has one server. */
  killAndRestart(): Promise<void> {
    this.#restarting = this.#restarting.then(async () => {
      await this.end();
      await this.#serve();
    });
    return this.#restarting;
  }

  async end(): Promise<void> {
    await this.#process.end();
  }

  operate<T>(...args: readonly string[]): Promise<T> {
    return cambium<T>(...args, '--data', this.data);
  }

  async branch(...options: readonly string[]): Promise<string> {
    const { id } = await this.operate<BranchBody>('branch', 'create', 'b', '--tree', this.tree, ...options);
    return id;
  }

  /** The credentials file of a new leaf. */
  async leaf(branch: string, name: string): Promise<string> {
    const out = join(this.data, `${branch}-${name}.json`);
    await this.operate('leaf', 'create', name, '--branch', branch, '--out', out);
    return out;
  }

  /** A round when it is done. */
  async done(branch: string, number: number): Promise<RoundBody> {
    for (;;) {
      // It may be dead at the moment.
      const rounds = await this.operate<readonly RoundBody[]>('round', 'list', branch).catch(() => []);
      const round = rounds.find((each) => each.round === number);
      if (round?.status === 'done') return round;
    }
  }

  /** The file of a round, as it is saved. */
  async result(branch: string, number: number): Promise<Buffer> {
    const round = await this.done(branch, number);
    const output = join(folder, `${branch}-${number}.npy`);
    await this.operate('round', 'save', round.aggregation_id!, '-o', output);
    return readFileSync(output);
  }
}

/** Leaves that upload their prepared files, round after round. */
async function leavesOf(site: Site, branch: string, first: number, count: number, rounds: number) {
  const program = "require('fs').copyFileSync(process.argv[1], process.argv[2])";
  const leaves: JoinedLeaf[] = [];
  for (let i = first; i < first + count; i++) {
    const credentials = await site.leaf(branch, `leaf-${i}`);
    const file = join(folder, 'round-{round}', `leaf-${i}.npy`);
    const words = ['--', process.execPath, '-e', program, file, '{update}'];
    const leaf = new JoinedLeaf(['--credentials', credentials, '--rounds', String(rounds), ...words]);
    running.add(leaf);
    leaves.push(leaf);
  }
  return leaves;
}

async function finished(leaves: readonly JoinedLeaf[]): Promise<void> {
  for (const leaf of leaves) assert.is(await leaf.ended(), 0, leaf.stderr);
}

test('on one server', async () => {
  const site = await Site.start();
  const root = await site.branch('--target', '3');
  const leaves: JoinedLeaf[] = [];
  const below: string[] = [];
  for (const count of BRANCHES) below.push(await site.branch('--target', String(count), '--parent', root));
  await site.operate('run', 'start', root);
  for (const [b, count] of BRANCHES.entries()) {
    leaves.push(...(await leavesOf(site, below[b]!, leaves.length, count, 1)));
  }
  await finished(leaves);
  await site.done(root, 1);
  sameBytes(await site.result(root, 1), flat.get(1)!);
});

/** A relay that dies after a few of its lines, again and again, and its server below once; then it lives. */
async function relay(
  credentials: string,
  below: Site,
  branch: string,
  end: AbortSignal,
): Promise<JoinedLeaf> {
  const ended = once(end, 'abort');
  for (let death = 1; ; death++) {
    const args = ['--credentials', credentials, '--branch', branch, '--data', below.data];
    const process = new JoinedLeaf(args, undefined, 'relay');
    running.add(process);
    if (death > DEATHS) return process;
    await Promise.race([process.printed(random.integer(1, 5)), ended]);
    await process.end();
    if (death === SERVER_DEATH && !end.aborted) await below.killAndRestart();
  }
}

test('over three levels of servers, with relays and servers killed', async () => {
  const [top, middle, bottom] = [await Site.start(), await Site.start(), await Site.start()];
  const root = await top.branch('--target', '2', '--partial-sums');
  const halves = [
    await middle.branch('--target', '2', '--partial-sums', '--upstream'),
    await middle.branch('--target', '1', '--partial-sums', '--upstream'),
  ];
  const ends = new AbortController();
  const waiting: (readonly [credentials: string, below: Site, branch: string])[] = [];
  for (const [h, half] of halves.entries()) {
    waiting.push([await top.leaf(root, `half-${h}`), middle, half]);
  }
  const leaves: JoinedLeaf[] = [];
  const branches: string[] = [];
  for (const [b, count] of BRANCHES.entries()) {
    const branch = await bottom.branch('--target', String(count), '--upstream');
    branches.push(branch);
    const credentials = await middle.leaf(halves[b === 2 ? 1 : 0]!, `third-${b}`);
    waiting.push([credentials, bottom, branch]);
    await bottom.operate('run', 'start', branch);
  }
  for (const half of halves) await middle.operate('run', 'start', half);
  await top.operate('run', 'start', root);
  for (const [b, count] of BRANCHES.entries()) {
    leaves.push(...(await leavesOf(bottom, branches[b]!, leaves.length, count, ROUNDS)));
  }
  const relays = waiting.map((each) => relay(...each, ends.signal));
  await finished(leaves);
  for (const branch of branches) await bottom.done(branch, ROUNDS);
  ends.abort();
  for (const started of relays) await (await started).end();
  for (let round = 1; round <= ROUNDS; round++) {
    sameBytes(await top.result(root, round), flat.get(round)!);
    for (const half of halves) sameBytes(await middle.result(half, round), flat.get(round)!);
    for (const branch of branches) sameBytes(await bottom.result(branch, round), flat.get(round)!);
  }
  const rounds = await top.operate<readonly RoundBody[]>('round', 'list', root);
  assert.equal(
    rounds.map(({ status, updates }) => [status, updates.length]),
    [['open', 0], ...Array.from({ length: ROUNDS }, () => ['done', 2])],
  );
});

test.run();
