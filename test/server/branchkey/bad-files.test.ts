/** What BranchKey's clients let through and a round must not have, as files of real NumPy. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { startJobs } from '../../../src/node/workers.ts';
import { bearerPaths, paths } from '../../../src/wire/branchkey.ts';
import {
  type CredentialsBody,
  type ErrorBody,
  paths as own,
  type RunBody,
} from '../../../src/wire/cambium.ts';
import { hasPythonModule, PYTHON } from '../../helpers/peers.ts';
import { Harness, leafToken } from '../harness.ts';

const test = suite('server/branchkey/bad-files');

/** The code of each file's refusal; those without one are accepted. */
const CODES: Readonly<Record<string, string | undefined>> = {
  'beyond.npy': 'weights-form',
  'bool.npz': 'weights-form',
  'bytes-weighting.npy': 'weights-form',
  'complex.npz': 'weights-form',
  'dates.npy': 'npy-dtype-unsupported',
  'empty.npy': 'layout-empty',
  'from-one.npz': 'weights-form',
  'gap.npz': 'weights-form',
  'good.npy': undefined,
  'good.npz': undefined,
  'huge.npy': 'weights-form',
  'huge.npz': 'weighting-range',
  'infinite.npz': 'weighting-infinite',
  'later-dict.npy': 'pickle-opcode',
  'later-none.npy': 'weights-form',
  'later-number.npy': 'weights-form',
  'later-text.npy': 'weights-form',
  'missing.npz': 'weighting-missing',
  'nan-element.npy': 'non-finite',
  'nan-element.npz': 'non-finite',
  'nan.npz': 'weighting-nan',
  'negative.npy': 'weighting-negative',
  'negative.npz': 'weighting-negative',
  'none-weighting.npy': 'weights-form',
  'none.npz': 'layout-empty',
  'objects.npy': 'weights-form',
  'objects.npz': 'npy-dtype-unsupported',
  'one.npy': 'weights-form',
  'plain.npy': 'weighting-missing',
  'scalar.npz': undefined,
  'strings.npy': 'npy-dtype-unsupported',
  'strings.npz': 'npy-dtype-unsupported',
  'text-weighting.npy': 'weights-form',
  'text.npz': 'npy-dtype-unsupported',
  'three.npy': 'weights-form',
  'two.npz': 'weights-form',
  'zero.npy': 'weighting-zero',
  'zero.npz': 'weighting-zero',
};

if (hasPythonModule('numpy')) {
  const harness = new Harness();
  const jobs = startJobs({ threads: 2, workerUrl: new URL('../../../dist/worker.js', import.meta.url) });
  let folder: string;
  test.before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'cambium-bad-files-'));
    const script = fileURLToPath(new URL('bad_files.py', import.meta.url));
    const { status, stderr } = spawnSync(PYTHON, [script, folder], { encoding: 'utf8' });
    assert.is(status, 0, stderr);
    await harness.start({ jobs });
  });
  test.after(async () => {
    await harness.end();
    await jobs.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const upload = (leaf: CredentialsBody, name: string) => {
    const form = new FormData();
    form.set('data', '{}');
    form.set('file', new Blob([readFileSync(join(folder, name))]), name);
    const basic = `Basic ${btoa(`${leaf.id}:${leaf.session_token}`)}`;
    return name.endsWith('.npz')
      ? harness.call('POST', bearerPaths.upload(), {
          body: form,
          headers: { authorization: leafToken(leaf) },
        })
      : harness.call('POST', paths.upload(), { body: form, headers: { authorization: basic } });
  };

  test('every file that was written is spoken of', () => {
    assert.equal(readdirSync(folder).sort(), Object.keys(CODES).sort());
  });

  for (const [name, code] of Object.entries(CODES)) {
    test(`${name}: ${code ?? 'accepted'}`, async () => {
      const { id, leaves } = await harness.branch(2);
      const before = await harness.stored();
      const { status, body } = await upload(leaves[0]!, name);
      if (code === undefined) {
        assert.is(status, 201, JSON.stringify(body));
        return;
      }
      const { error, message } = body as ErrorBody;
      assert.equal([status, (body as ErrorBody).code, error], [422, code, message]);
      assert.not.match(message, /undefined|\[object|\n/);
      const run = await harness.operate<RunBody>('GET', own.run(id));
      assert.is(run.body.updates, 0);
      assert.equal(await harness.stored(), before);
      // Neither the round nor the leaf has suffered.
      assert.is((await upload(leaves[0]!, 'good.npz')).status, 201);
    });
  }
}

test.run();
