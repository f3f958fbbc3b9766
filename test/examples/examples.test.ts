/** The examples, each as a federation of two leaves: `cambium join` beside a real server, and the model becomes better. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { startJobs } from '../../src/node/workers.ts';
import { realTimers } from '../../src/server/timers.ts';
import { type MetricsBody, paths } from '../../src/wire/cambium.ts';
import { JoinedLeaf } from '../helpers/joined.ts';
import { hasPythonModule, PYTHON } from '../helpers/peers.ts';
import { Harness } from '../server/harness.ts';

const ROUNDS = 4;

const test = suite('examples');
const at = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** Runs a program as two leaves; the mean loss of the models that they were given, round by round. */
async function federate(options: readonly string[], program: (leaf: number) => string[]): Promise<number[]> {
  const folder = mkdtempSync(join(tmpdir(), 'cambium-examples-'));
  const jobs = startJobs({ workerUrl: new URL('../../dist/worker.js', import.meta.url) });
  const harness = await new Harness().start({ jobs, timers: realTimers });
  const leaves: JoinedLeaf[] = [];
  try {
    const branch = await harness.branch(2);
    for (const [i, credentials] of branch.leaves.entries()) {
      const path = join(folder, `leaf-${i}.json`);
      writeFileSync(path, JSON.stringify(credentials));
      const words = ['--credentials', path, '--rounds', String(ROUNDS), ...options, '--', ...program(i)];
      leaves.push(new JoinedLeaf(words));
    }
    for (const leaf of leaves) {
      assert.is(await leaf.ended(), 0, leaf.stderr + JSON.stringify(leaf.lines));
      assert.is(leaf.all('uploaded').length, ROUNDS);
    }
    const { body } = await harness.operate<{ items: MetricsBody[] }>('GET', paths.branchMetrics(branch.id));
    const losses = new Map<string, number[]>();
    for (const { aggregation_id, data } of body.items) {
      const { loss } = data as { loss: number };
      losses.set(aggregation_id, [...(losses.get(aggregation_id) ?? []), loss]);
    }
    // Of the first model nobody knows: there was none.
    const order = leaves[0]!.all('model').map(({ aggregation }) => losses.get(String(aggregation))!);
    assert.equal(
      order.map((both) => both.length),
      Array.from({ length: ROUNDS - 1 }, () => 2),
    );
    return order.map(([a = NaN, b = NaN]) => (a + b) / 2);
  } finally {
    for (const leaf of leaves) await leaf.end();
    await harness.end();
    await jobs.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

function assertFalling(losses: readonly number[]): void {
  for (const [i, loss] of losses.entries()) assert.ok(i === 0 || loss < losses[i - 1]!, losses.join(' '));
}

if (hasPythonModule('numpy')) {
  test('NumPy', async () => {
    const words = ['--in', '{global}', '--out', '{update}', '--metrics', '{metrics}', '--leaf'];
    assertFalling(
      await federate(['--format', 'npz'], (leaf) => [PYTHON, at('numpy/train.py'), ...words, `${leaf}`]),
    );
  });
}

test('TensorFlow.js', async () => {
  assertFalling(
    await federate([], (leaf) => [
      process.execPath,
      at('tensorflow/train.mjs'),
      '{global}',
      '{update}',
      `${leaf}`,
    ]),
  );
});

test.run();
