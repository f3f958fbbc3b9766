/**
 * A process of the demo: a leaf that takes part in a federation through the client as any program would, or the
 * training in one place that it is compared with. It is told what to do by its parent and ends with it.
 */
import { join } from 'node:path';
import { packError } from '../../aggregate/packed-errors.ts';
import { Client } from '../../node/client.ts';
import { readCredentials } from '../../node/read-credentials.ts';
import type { CentralTask, LeafTask, Message, Task } from './messages.ts';
import { datasetOf, loadTraining, type Training } from './model.ts';
import { Random } from './random.ts';
import { readModel, writeUpdate } from './weights.ts';

// Ctrl-C on a terminal reaches the whole group of processes. What happens then is the parent's decision.
process.on('SIGINT', () => {});
const onLost = () => process.exit(1);
process.once('disconnect', onLost);

// Loaded while the server starts; a failure is told with the task that needs it.
const loading = loadTraining();
loading.catch(() => {});

process.once('message', async (task: Task) => {
  try {
    const training = await loading;
    await (task.type === 'leaf' ? takePart(task, training) : trainOnAll(task, training));
  } catch (error) {
    await tell({ type: 'failed', error: packError(error) });
  }
  process.off('disconnect', onLost);
  process.disconnect();
});

/** One local epoch, upload, wait for the average, go on from there; `rounds` times. */
async function takePart(task: LeafTask, training: Training): Promise<void> {
  const { folder, seed, rounds, stream } = task;
  const data = datasetOf(task.samples);
  const heldOut = datasetOf(task.heldOut);
  const client = new Client(await readCredentials(join(folder, 'credentials.json')));
  try {
    await client.authenticate();
    const shared = training.createModel(seed);
    // The same weights, digits and order, but nobody to average with.
    const alone = training.createModel(seed);
    const order = new Random(seed, stream);
    const aloneOrder = new Random(seed, stream);
    let round = 1;
    let loss = 0;
    const contribute = async () => {
      loss = await shared.trainEpoch(data, order);
      const path = join(folder, `update-${numbered(round)}.npy`);
      await writeUpdate(path, data.size, shared.weights());
      await client.fileUpload(path, { round });
      // The time in which the others are waited for.
      await alone.trainEpoch(data, aloneOrder);
    };

    await contribute();
    for await (const aggregationId of client.queue) {
      const path = join(folder, `global-${numbered(round)}.npy`);
      await client.fileDownload(aggregationId, { to: path });
      shared.setWeights(await readModel(path));
      const metrics = [
        ['train', { loss, samples: data.size }],
        ['test', { accuracy: shared.accuracy(heldOut) }],
        ['non-federated', { accuracy: alone.accuracy(heldOut) }],
      ] as const;
      for (const [mode, values] of metrics) await client.sendPerformanceMetrics(mode, values, aggregationId);
      await tell({ type: 'leaf-round', round, aggregationId });
      if (round === rounds) return;
      round++;
      await contribute();
    }
  } finally {
    await client.close();
  }
}

/** As many epochs on everybody's digits, which is what a federation is there to avoid. */
async function trainOnAll(
  { seed, rounds, samples, heldOut }: CentralTask,
  training: Training,
): Promise<void> {
  const data = datasetOf(samples);
  const test = datasetOf(heldOut);
  const model = training.createModel(seed);
  const order = new Random(seed);
  for (let round = 1; round <= rounds; round++) {
    await model.trainEpoch(data, order);
    await tell({ type: 'central-round', round, accuracy: model.accuracy(test) });
  }
}

/** File names of rounds sort as the rounds do. */
function numbered(round: number): string {
  return String(round).padStart(2, '0');
}

/** Ends when the message is on its way. */
function tell(message: Message): Promise<void> {
  return new Promise((resolve, reject) => {
    process.send?.(message, undefined, undefined, (error) => (error === null ? resolve() : reject(error)));
  });
}
