import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { fedAdam, fedYogi } from '../../src/aggregate/strategies/optimisers.ts';
import { createStateFile, openStateFile } from '../../src/node/state-file.ts';
import { failsWith } from '../helpers/errors.ts';

const MODELS = ['a', 'b', 'c'].map((digit) => digit.repeat(64));
const { step, name } = fedAdam({ learningRate: 0.1 });
const owner = {
  strategy: name,
  step: step!,
  tensors: [
    { name: 'w', dtype: 'float32', shape: [2, 2] },
    { name: 'h', dtype: 'bfloat16', shape: [3] },
    { name: 'n', dtype: 'int64', shape: [1] },
  ],
} as const;

const test = suite('node/state-file');
let folder = '';
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), 'cambium-state-'));
});
test.after.each(() => rmSync(folder, { recursive: true }));

/** Writes a state of which every byte is `value`, as far as `until` goes. */
async function writeState(
  path: string,
  round: number,
  value: number,
  model: string,
  until: 'written' | 'prepared' | 'finished',
): Promise<void> {
  const next = createStateFile(path, owner, round);
  for (const [i, length] of [16, 12, 16, 12].entries()) {
    await next.sink.write(next.byteOffsets[i]!, new Uint8Array(length).fill(value));
  }
  if (until === 'written') return;
  await next.prepare(model);
  if (until === 'finished') next.finish();
}

async function roundOf(path: string, model: string): Promise<[number, number] | null> {
  const opened = await openStateFile(path, owner, model);
  if (opened === null) return null;
  const bytes = new Uint8Array(12);
  await opened.source.readInto(opened.byteOffsets[3]!, bytes);
  await opened.source.close();
  assert.ok(bytes.every((byte) => byte === bytes[0]));
  return [opened.round, bytes[0]!];
}

test('a state comes back with the model that it belongs to', async () => {
  const path = join(folder, 'state.safetensors');
  assert.is(await roundOf(path, MODELS[0]!), null);
  await writeState(path, 1, 11, MODELS[1]!, 'finished');
  assert.equal(await roundOf(path, MODELS[1]!), [1, 11]);
  await failsWith('state-mismatch', () => openStateFile(path, owner, MODELS[2]!));
});

test('a crash at any point neither loses a step nor takes one twice', async () => {
  const path = join(folder, 'state.safetensors');
  await writeState(path, 1, 11, MODELS[0]!, 'finished');
  // Before the new model has appeared, the old one is where the round starts again.
  await writeState(path, 2, 22, MODELS[1]!, 'written');
  assert.equal(await roundOf(path, MODELS[0]!), [1, 11]);
  await writeState(path, 2, 22, MODELS[1]!, 'prepared');
  assert.equal(await roundOf(path, MODELS[0]!), [1, 11]);
  // After it, the step has been taken; the next look makes up for the rename.
  assert.equal(await roundOf(path, MODELS[1]!), [2, 22]);
  assert.not.ok(existsSync(`${path}.next`));
  // What else is there under that name does no harm.
  writeFileSync(`${path}.next`, 'no state');
  assert.equal(await roundOf(path, MODELS[1]!), [2, 22]);
  // The first round of all.
  const first = join(folder, 'first');
  await writeState(first, 1, 7, MODELS[1]!, 'prepared');
  assert.is(await roundOf(first, MODELS[0]!), null);
  assert.equal(await roundOf(first, MODELS[1]!), [1, 7]);
});

test('a state of another rule or model is refused, naming the tensor', async () => {
  const path = join(folder, 'state.safetensors');
  await writeState(path, 1, 11, MODELS[0]!, 'finished');
  const yogi = fedYogi({ learningRate: 0.1 });
  const [w, h, n] = owner.tensors;
  for (const [other, tensor] of [
    [{ ...owner, strategy: yogi.name, step: yogi.step! }, undefined],
    [{ ...owner, step: fedAdam({ learningRate: 0.2 }).step! }, undefined],
    [{ ...owner, tensors: [{ ...w, shape: [4] }, h, n] }, 'm.w'],
    [{ ...owner, tensors: [{ ...w, dtype: 'float64' as const }, h, n] }, 'm.w'],
    [{ ...owner, tensors: [{ ...w, name: 'other' }, h, n] }, 'm.other'],
    [{ ...owner, tensors: [w, n] }, undefined],
    [{ ...owner, tensors: [w, { ...h, dtype: 'float16' as const }, n] }, undefined],
  ] as const) {
    const error = await failsWith('state-mismatch', () => openStateFile(path, other, MODELS[0]!));
    assert.is((error as { tensor?: string }).tensor, tensor);
  }
  writeFileSync(path, 'no state at all, whatever it is');
  await failsWith('st-header-size', () => openStateFile(path, owner, MODELS[0]!));
});

test.run();
