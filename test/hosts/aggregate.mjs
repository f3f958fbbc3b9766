// One aggregation through any door, in any JavaScript host: nothing here needs more than the language.

/**
 * The bytes of the output file, or the code of the error. Types: aggregate.d.mts.
 */
export async function aggregate(door, { inputs, nonFinite = 'reject', strategy }) {
  try {
    const opened = [];
    for (const { name, bytes } of inputs) {
      const weights = await door.openWeights(door.memorySource(bytes, name));
      await weights.verify?.();
      const { source, layout } = weights.unpack === null ? weights : await weights.unpack({ scratch });
      opened.push({ leaf: name, source, layout, weighting: layout.weighting });
    }
    const rule = strategy === undefined ? undefined : door.openStrategy(strategy.name, strategy.parameters);
    const aggregation = await door.Aggregation.open(opened, { nonFinite, strategy: rule });
    const isPlain = opened.every(({ layout }) => layout.format === 'npy');
    const encoding = await door.encodeWeights({
      format: isPlain ? 'npy' : 'npy-object',
      weighting: aggregation.totalWeighting,
      tensors: aggregation.tensors,
    });
    const sink = door.memorySink(encoding.byteLength);
    await aggregation.run(sink, encoding);
    await aggregation.close();
    return sink.bytes;
  } catch (error) {
    if (!door.isCambiumError(error)) throw error;
    return error.code;
  }
}

/** Scratch room in memory. */
function scratch(byteLength) {
  const room = new Uint8Array(byteLength);
  return {
    name: 'scratch',
    byteLength,
    readInto(offset, target) {
      const part = room.subarray(offset, offset + target.byteLength);
      target.set(part);
      return part.byteLength;
    },
    write: (offset, bytes) => room.set(bytes, offset),
    close() {},
  };
}
