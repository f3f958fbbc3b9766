/** Operating a server by the command line: a tree of branches from its creation to the file, and what is refused. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { encodeUpdate } from '../../src/client/weights.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import {
  type BranchBody,
  type ErrorBody,
  type LeafBody,
  paths,
  type RoundBody,
} from '../../src/wire/cambium.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { Harness, toyFile } from '../server/harness.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const test = suite('operate');
const folder = mkdtempSync(join(tmpdir(), 'cambium-operate-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function cambium(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const options = { cwd: folder, env: { ...process.env, ...env } };
    execFile(process.execPath, [CLI, ...args], options, (error, stdout, stderr) => {
      const code = typeof error?.code === 'number' ? error.code : error === null ? 0 : -1;
      resolve({ code, stdout, stderr });
    });
  });
}

/** What a command prints that must succeed; its last line where there are several. */
async function told<T>(...args: string[]): Promise<T> {
  const end = args.includes('--') ? args.indexOf('--') : args.length; // behind stands a program
  const { code, stdout, stderr } = await cambium([...args.slice(0, end), '--json', ...args.slice(end)]);
  assert.is(code, 0, `${args.join(' ')}: ${stderr}`);
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as T;
}

test('ten leaves, three branches, two levels: the root is the flat mean, from the commands to the file', async () => {
  const random = new Random(testSeed());
  const updates = await Promise.all(
    Array.from({ length: 10 }, async (_, i) => {
      const path = join(folder, `update-${i}.npy`);
      const values = Float32Array.from({ length: 1001 }, () => random.gauss());
      const update = { weighting: random.integer(1, 500), tensors: [tensorOf(values)] };
      writeFileSync(path, await encodeUpdate(update));
      return path;
    }),
  );
  const server = spawn(process.execPath, [CLI, 'serve', '--data', 'data', '--port', '0', '--json'], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    await once(server.stdout!, 'data');
    const at = ['--data', 'data'];
    const tree = await told<{ id: string }>('tree', 'create', 'tree', ...at);
    const root = await told<BranchBody>(
      'branch',
      'create',
      'root',
      '--tree',
      tree.id,
      '--target',
      '3',
      ...at,
    );
    const below: [string, number][] = [];
    for (const leaves of [4, 3, 3]) {
      const place = ['--tree', tree.id, '--target', String(leaves), '--parent', root.id];
      below.push([(await told<BranchBody>('branch', 'create', `of ${leaves}`, ...place, ...at)).id, leaves]);
    }
    const branches = below.flatMap(([id, count]) => Array.from({ length: count }, () => id));
    await Promise.all(
      branches.map((branch, i) =>
        told('leaf', 'create', `leaf-${i}`, '--branch', branch, '--out', `leaf-${i}.json`, ...at),
      ),
    );
    await told('run', 'start', root.id, ...at);
    await Promise.all(
      updates.map((update, i) =>
        told('join', '--once', '--credentials', `leaf-${i}.json`, '--', 'cp', update, '{update}'),
      ),
    );
    const round = await told<RoundBody>('run', 'watch', root.id, '--rounds', '1', ...at);
    assert.equal([round.round, round.status, round.updates.length], [1, 'done', 10]);

    const flat = await told<{ sha256: string }>(
      'aggregate',
      ...updates,
      '--format',
      'npy-object',
      '-o',
      'flat.npy',
    );
    await told('round', 'save', round.aggregation_id!, '-o', 'root.npy', ...at);
    assert.ok(
      readFileSync(join(folder, 'root.npy')).equals(readFileSync(join(folder, 'flat.npy'))),
      flat.sha256,
    );
    // And of one branch, which nobody waited for.
    const how = ['--format', 'npy-object', '-o', 'four-flat.npy'];
    await told('aggregate', ...updates.slice(0, 4), ...how);
    await told('round', 'save', round.id, '--branch', below[0]![0], '-o', 'four.npy', ...at);
    assert.ok(readFileSync(join(folder, 'four.npy')).equals(readFileSync(join(folder, 'four-flat.npy'))));
  } finally {
    server.kill();
    await once(server, 'exit');
  }
});

test('what cannot be followed is refused by code and exit code, and nothing has changed', async () => {
  const harness = await new Harness().start();
  try {
    const { server, token } = harness.operator;
    const env = { CAMBIUM_SERVER: server, CAMBIUM_TOKEN: token };
    const branch = await harness.branch(2, 3);
    const { body: before } = await harness.operate<BranchBody>('GET', paths.branch(branch.id));
    const tree = before.tree_id;
    const make = async (name: string, parent_id: string | null) => {
      const fields = { name, tree_id: tree, aggregation_target: 1, parent_id };
      return (await harness.operate<BranchBody>('POST', paths.branches(), fields)).body.id;
    };
    const top = await make('top', null);
    const middle = await make('middle', top);
    const bottom = await make('bottom', middle);
    const lonely = await make('lonely', null);
    await harness.operate('PATCH', paths.branch(lonely), { aggregation_target: 5, minimum: 4 });

    const set = (id: string, change: object) => ['PATCH', paths.branch(id), change] as const;
    const cases: readonly (readonly [
      name: string,
      request: readonly ['PATCH' | 'POST' | 'DELETE', string, object?],
      args: readonly string[],
      status: number,
      code: string,
      exit?: readonly [number, string],
    ])[] = [
      [
        'a minimum above the leaves that there are',
        set(branch.id, { aggregation_target: 9, minimum: 4 }),
        ['branch', 'set', branch.id, '--target', '9', '--minimum', '4'],
        422,
        'policy-minimum-leaves',
      ],
      [
        'a run of fewer leaves than its minimum',
        ['POST', paths.run(lonely), { run_status: 'start' }],
        ['run', 'start', lonely],
        422,
        'policy-minimum-leaves',
      ],
      [
        'a minimum above the target',
        set(branch.id, { minimum: 3 }),
        ['branch', 'set', branch.id, '--minimum', '3'],
        422,
        'policy-minimum-target',
      ],
      [
        'a deadline without a minimum',
        set(branch.id, { deadline_ms: 60_000 }),
        ['branch', 'set', branch.id, '--deadline', '60s'],
        422,
        'policy-deadline-minimum',
      ],
      [
        'a sample of none',
        set(branch.id, { sample: { leaves: 0 } }),
        ['branch', 'set', branch.id, '--sample', '0'],
        422,
        'policy-sample',
        [2, 'usage'], // the command sees it before it asks
      ],
      [
        'too few leaves for the trimmed share',
        set(branch.id, { strategy: { name: 'trimmed-mean', parameters: { trim: 0.2 } } }),
        ['branch', 'set', branch.id, '--strategy', 'trimmed-mean:trim=0.2'],
        422,
        'policy-strategy-inputs',
      ],
      [
        'a parent that stands below',
        set(top, { parent_id: bottom }),
        ['branch', 'set', top, '--parent', bottom],
        409,
        'parent-cycle',
      ],
      [
        'a parent of its own',
        set(middle, { parent_id: middle }),
        ['branch', 'set', middle, '--parent', middle],
        409,
        'parent-cycle',
      ],
      [
        'deletion under an open run',
        ['DELETE', paths.branch(branch.id)],
        ['branch', 'delete', branch.id],
        409,
        'run-open',
      ],
    ];
    const state = async () =>
      JSON.stringify([
        (await harness.operate('GET', paths.branches())).body,
        (await harness.operate<{ items: LeafBody[] }>('GET', paths.leaves())).body,
        (await harness.operate('GET', paths.rounds(branch.id))).body,
        (await harness.operate('GET', paths.runs(lonely))).body,
      ]);
    const present = await state();
    const ended = await Promise.all(cases.map(([, , args]) => cambium([...args, '--json'], env)));
    for (const [i, [name, [method, path, body], , status, code, exit = [77, code]]] of cases.entries()) {
      const { code: actual, stdout, stderr } = ended[i]!;
      assert.equal([actual, (JSON.parse(stdout) as ErrorBody).code], exit, `${name}: ${stderr}`);
      const answer = await harness.operate(method, path, body);
      assert.equal([answer.status, answer.body.code], [status, code], name);
      assert.is(await state(), present, name);
    }
    const leaf = await cambium(
      ['leaf', 'create', 'x', '--branch', branch.id, '-o', 'no/x.json', '--json'],
      env,
    );
    assert.equal([leaf.code, (JSON.parse(leaf.stdout) as ErrorBody).code], [74, 'file-not-found']);
    assert.is(await state(), present, 'a leaf whose token would be lost');
    // The branch is as good as before.
    await harness.upload(branch.leaves[0]!, toyFile(1));
    const { body } = await harness.upload(branch.leaves[1]!, toyFile(2));
    assert.is(body.round, 1);
  } finally {
    await harness.end();
  }
});

test.run();
