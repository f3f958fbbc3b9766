import { readFileSync } from 'node:fs';
import { Aggregation, type AggregationOptions } from '../../src/aggregate/aggregation.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import { openWeights } from '../../src/formats/open.ts';
import { unpackWeights } from '../../src/formats/weights.ts';
import { memoryScratch, memorySink, memorySource } from '../../src/tensor/bytes.ts';

/** The file that the mean of weight files makes: a plain array of plain arrays, else an object array. */
export async function meanOfFiles(
  files: readonly string[],
  options: AggregationOptions = {},
): Promise<Uint8Array> {
  const inputs = [];
  for (const file of files) {
    const weights = await openWeights(memorySource(readFileSync(file), file));
    const { source, layout } = await unpackWeights(weights, { scratch: memoryScratch });
    inputs.push({ leaf: file, source, layout, weighting: layout.weighting });
  }
  const aggregation = await Aggregation.open(inputs, options);
  const format = inputs.every(({ layout }) => layout.format === 'npy') ? 'npy' : 'npy-object';
  const { tensors, totalWeighting } = aggregation;
  const encoding = await encodeWeights({ format, weighting: totalWeighting, tensors });
  const sink = memorySink(encoding.byteLength);
  await aggregation.run(sink, encoding);
  await aggregation.close();
  return sink.bytes;
}
