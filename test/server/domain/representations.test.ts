import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FormatError } from '../../../src/errors.ts';
import type { ConvertRequest } from '../../../src/node/jobs.ts';
import type { Domain } from '../../../src/server/domain/domain.ts';
import { Refusal } from '../../../src/server/domain/refusal.ts';
import { type Representation, Representations } from '../../../src/server/domain/representations.ts';
import type { Result } from '../../../src/server/domain/results.ts';
import { failsWith } from '../../helpers/errors.ts';

const folder = mkdtempSync(join(tmpdir(), 'cambium-representations-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

/** Representations over blobs that are only counted, and jobs that write one byte. */
function setUp(names: readonly (string | null)[] = [null]) {
  const asked: ConvertRequest[] = [];
  const blobs = new Set<string>();
  const state = { failure: undefined as Error | undefined, isFull: false };
  const domain = {
    blobs: {
      path: (id: string) => join(folder, id),
      workPath: (id: string) => join(folder, id),
      put: async (id: string) => void blobs.add(id),
      remove: async (id: string) => void blobs.delete(id),
    },
    jobs: {
      examine: async () => ({ layout: { tensors: names.map((name) => ({ name })) }, nonFinite: [] }),
      convert: async (request: ConvertRequest) => {
        asked.push(request);
        await new Promise(setImmediate);
        if (state.failure !== undefined) throw state.failure;
        writeFileSync(request.output, 'x');
        return { sha256: '00' };
      },
    },
    log: { info() {}, error() {} },
  } as unknown as Domain; // no more of it is used
  const checkRoom = async () => {
    if (state.isFull) throw new Refusal('disk-full', 'disk-full', 'full');
  };
  const representations = new Representations(domain, checkRoom, new AbortController().signal);
  return { representations, asked, blobs, state };
}

function result(id: string, total_weighting = 3): Result {
  return { aggregation_id: id, total_weighting, byte_length: 9, sha256: 'ff' } as Result; // no more is used
}

test('as it is stored, nothing is converted', async () => {
  const { representations, asked } = setUp();
  for (const representation of ['npy', 'branchkey-npy'] as const) {
    const file = await representations.hold(result('a'), representation);
    assert.equal([file.id, file.byteLength, file.sha256], ['a', 9, 'ff']);
    file.release();
  }
  assert.is(asked.length, 0);
});

const cases: [Representation, number, (string | null)[], Partial<ConvertRequest>][] = [
  ['npz', 3, ['w'], { format: 'npz' }],
  ['safetensors', 3, ['w'], { format: 'safetensors' }],
  ['branchkey-npz', 3, [null], { format: 'npz', weighting: null, names: 'drop' }],
  ['branchkey-npy', 3, [null, 'w'], { format: 'npy-object', weighting: 3, names: 'drop' }],
  ['branchkey-npy', 2.5, [null], { format: 'npy-object', weighting: 3, names: 'drop' }],
  ['branchkey-npy', 2 ** -60, [null], { format: 'npy-object', weighting: 1, names: 'drop' }],
];
for (const [representation, total, names, expected] of cases) {
  test(`${representation} of a total of ${total} and names ${names.join()}`, async () => {
    const { representations, asked } = setUp(names);
    (await representations.hold(result('a', total), representation)).release();
    const { input: _, output: __, void16, ...how } = asked[0]!;
    assert.equal([how, void16], [expected, 'bfloat16']);
  });
}

test('readers that come at once wait for one conversion', async () => {
  const { representations, asked, blobs } = setUp();
  const held = await Promise.all([1, 2, 3].map(() => representations.hold(result('a'), 'npz')));
  assert.is(new Set(held.map(({ id }) => id)).size, 1);
  assert.is(asked.length, 1);
  assert.equal([...blobs], [held[0]!.id]);
});

test('the newest sixteen are kept, and what is read until it has been read', async () => {
  const { representations, asked, blobs } = setUp();
  const read = await representations.hold(result('read'), 'npz');
  (await representations.hold(result('old'), 'npz')).release();
  for (let i = 0; i < 16; i++) (await representations.hold(result(`new-${i}`), 'npz')).release();
  await new Promise(setImmediate);
  assert.is(blobs.size, 17);
  assert.ok(blobs.has(read.id));
  read.release();
  read.release();
  await new Promise(setImmediate);
  assert.is(blobs.size, 16);
  assert.not(blobs.has(read.id));
  // Another one is made when it is asked for again; one that is there is not.
  assert.is.not((await representations.hold(result('read'), 'npz')).id, read.id);
  assert.is(asked.length, 19);
  await representations.hold(result('new-15'), 'npz');
  assert.is(asked.length, 19);
});

test('what a format cannot hold, and what the disk cannot, is refused and tried again later', async () => {
  const { representations, asked, state, blobs } = setUp();
  state.failure = new FormatError('convert-format', 'cannot');
  const refused = await failsWith('format-unavailable', () =>
    representations.hold(result('a'), 'safetensors'),
  );
  assert.is((refused as Refusal).reason, 'unacceptable');
  state.failure = undefined;
  state.isFull = true;
  await failsWith('disk-full', () => representations.hold(result('a'), 'safetensors'));
  assert.is(asked.length, 1);
  state.isFull = false;
  await representations.hold(result('a'), 'safetensors');
  assert.is(blobs.size, 1);
});

test.run();
