// A program that trains as a test wants it: node join-program.mjs BEHAVIOUR GLOBAL UPDATE METRICS [MARKER]
import { appendFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { openFileSink, openFileSource, readTensors, tensorOf, writeWeights } from '../../dist/index.js';

const [behaviour, model, update, metrics, marker] = process.argv.slice(2);

async function write(values, weighting = 2, options = {}) {
  const tensors = [tensorOf(Float32Array.from(values))];
  await writeWeights(await openFileSink(update), { weighting, tensors }, options);
}

/** The model plus one; without a model, zeros. */
async function train() {
  let values = [0, 0];
  if (existsSync(model)) {
    const source = await openFileSource(model);
    const { data } = (await readTensors(source)).tensors[0];
    values = [...new Float32Array(data.buffer, data.byteOffset, 2)].map((value) => value + 1);
    await source.close();
  }
  await write(values);
}

if (marker !== undefined) appendFileSync(marker, `${process.pid} ${process.env.CAMBIUM_ROUND}\n`);
switch (behaviour) {
  case 'good':
    await train();
    console.log('a line for people');
    console.log('{"mode":"train","metrics":{"loss":0.5}}');
    writeFileSync(metrics, '{"mode":"test","metrics":{"accuracy":0.75}}');
    break;
  case 'crash':
    process.exit(3);
    break;
  case 'crash-first':
    if (process.env.CAMBIUM_ROUND === '1') process.exit(3);
    await train();
    break;
  case 'flaky': {
    const isFirst = !existsSync(`${marker}.2`);
    writeFileSync(`${marker}.2`, '');
    if (isFirst) process.exit(3);
    await train();
    break;
  }
  case 'nothing':
    break;
  case 'folder':
    mkdirSync(update);
    break;
  case 'garbage':
    writeFileSync(update, 'no weights at all');
    break;
  case 'nan':
    await write([1, Number.NaN]);
    break;
  case 'shape':
    await write([1, 2, 3]);
    break;
  case 'zero':
    await write([1, 2], 0);
    break;
  case 'plain':
    await write([1, 2], null, { format: 'npy' });
    break;
  case 'metrics':
    await train();
    writeFileSync(metrics, 'accuracy: 1');
    break;
  case 'hang':
    process.on('SIGTERM', () => process.exit(0));
    setInterval(() => {}, 1000);
    break;
}
