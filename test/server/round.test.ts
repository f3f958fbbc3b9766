/** One federated round through Cambium's own API. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type AggregationBody, paths, type RoundBody, type RunBody } from '../../src/wire/cambium.ts';
import { EventStream, Harness, leafToken, toyFile } from './harness.ts';

test('five leaves upload, the round closes, everybody is told and fetches the mean', async () => {
  const harness = await new Harness().start();
  try {
    const { id, leaves } = await harness.branch(5);
    const streams = await Promise.all(
      leaves.map((leaf) =>
        EventStream.open(new URL(paths.notices(leaf.id), harness.server.url), {
          authorization: leafToken(leaf),
        }),
      ),
    );
    for (const stream of streams) {
      const started = await stream.event();
      assert.is(started?.event, 'run_status');
      assert.is(started?.id, '1');
      assert.equal(JSON.parse(started!.data!), {
        message_type: 'run_status',
        body: { run_status: 'start' },
        run: 1,
        round: 1,
      });
    }
    for (const [i, leaf] of leaves.entries()) {
      const { status, body } = await harness.upload(leaf, toyFile(i + 1, [{ values: [i, 10 * i] }]));
      assert.is(status, 201);
      assert.is(body.round, 1);
      assert.is(body.weighting, i + 1);
      assert.is(body.duplicate, false);
    }
    for (const [i, stream] of streams.entries()) {
      const told = JSON.parse((await stream.event())!.data!);
      assert.is(told.message_type, 'aggregation_status');
      const { body } = await harness.call<AggregationBody>('GET', paths.aggregation(told.aggregation_id), {
        headers: { authorization: leafToken(leaves[i]!) },
      });
      assert.is(body.leaves, 5);
      assert.is(body.total_weighting, 15);
      const file = await fetch(body.download_url);
      assert.is(file.status, 200);
      assert.equal(JSON.parse(await file.text()), {
        weighting: 15,
        tensors: [{ values: [40 / 15, 400 / 15] }],
      });
      await stream.close();
    }
    const run = await harness.operate<RunBody>('GET', paths.run(id));
    assert.is(run.body.round, 2);
    assert.is(run.body.updates, 0);
    const rounds = await harness.operate<{ items: RoundBody[] }>('GET', paths.rounds(id));
    assert.equal(
      rounds.body.items.map(({ round, status, updates }) => [round, status, updates.length]),
      [
        [2, 'open', 0],
        [1, 'done', 5],
      ],
    );
  } finally {
    await harness.end();
  }
});

test.run();
