// What becomes of a weight file, as plain data: the same lines run in Node and in the page.

/** @returns {Promise<string>} SHA-256 in hexadecimal */
export async function sha256(bytes) {
  const digest = await crypto.subtle.digest('SHA-256', bytes);
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** An error with all that it says. */
export function failure(error) {
  const { name, code, message, offset, tensor, leaf, index, file, path } = error;
  return { name, code, message, offset, tensor, leaf, index, file, path };
}

/** @param {{ readTensors: Function }} cambium one of the doors */
export async function outcomeOf(cambium, source) {
  try {
    const { layout, weighting, tensors } = await cambium.readTensors(source);
    const read = [];
    for (const { name, dtype, shape, data } of tensors) {
      read.push({ name, dtype, shape, sha256: await sha256(data) });
    }
    return {
      format: layout.format,
      weighting: String(weighting),
      weightingType: layout.weightingType,
      places: layout.tensors.map(({ byteOffset, order, byteOrder }) => [byteOffset, order, byteOrder]),
      tensors: read,
    };
  } catch (error) {
    return failure(error);
  }
}
