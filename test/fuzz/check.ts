// What must hold for any bytes: a valid layout or an error of ours that tells where, and no more work, reads and memory
// than the length of the input allows.
import { isDeepStrictEqual } from 'node:util';
import { FormatError } from '../../src/errors.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import { openWeights } from '../../src/formats/open.ts';
import { readTensors } from '../../src/formats/read.ts';
import { unpackWeights, type Weights } from '../../src/formats/weights.ts';
import { writeWeights } from '../../src/formats/write.ts';
import { type ByteSource, memoryScratch, memorySink, memorySource } from '../../src/tensor/bytes.ts';
import { DTYPES, itemSize } from '../../src/tensor/dtypes.ts';
import { elementCount, type Layout } from '../../src/tensor/layout.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { countAllocations } from '../helpers/allocations.ts';

/** Every opcode window is followed by one that begins where the walker stopped, so some bytes are read again. */
const READS_PER_BYTE = 4;
const READ_BYTES_AT_LEAST = 8_192;

/** 64 bytes of arena for each byte of a pickle (test/core/pickle.test.ts); each new arena has four times the last. */
const MEMORY_PER_BYTE = 512;
const MEMORY_AT_LEAST = 16 << 20;

/** What unpacked elements may take: a user's limit. */
const MOST_UNPACKED = 4 << 20;

interface Spent {
  bytes: number;
  calls: number;
}

/** An invariant that does not hold. */
class Violation extends Error {}

function hold(condition: boolean, sentence: () => string): asserts condition {
  if (!condition) throw new Violation(sentence());
}

/** A source that tells how much is read of it, and stops whoever reads without end. */
function metered(bytes: Uint8Array) {
  const source = memorySource(bytes, 'input');
  const spent: Spent = { bytes: 0, calls: 0 };
  const maxBytes = READS_PER_BYTE * bytes.byteLength + READ_BYTES_AT_LEAST;
  const maxCalls = bytes.byteLength + 64;
  const readInto: ByteSource['readInto'] = (offset, target) => {
    spent.bytes += Math.min(target.byteLength, Math.max(0, bytes.byteLength - offset));
    spent.calls++;
    hold(Number.isSafeInteger(offset) && offset >= 0, () => `read at ${offset}`);
    hold(spent.bytes <= maxBytes, () => `more than ${maxBytes} bytes read of ${bytes.byteLength}`);
    hold(spent.calls <= maxCalls, () => `more than ${maxCalls} reads of ${bytes.byteLength} bytes`);
    return source.readInto(offset, target);
  };
  return { ...source, readInto, spent };
}

/** What an input did, so that inputs that do something new can be told from others. */
export interface Outcome {
  readonly signature: string;
  readonly isValid: boolean;
  /** Memory for each byte of the input. */
  readonly memory: number;
}

/**
 * Gives bytes to the readers.
 *
 * @throws Violation when something does not hold; what a reader throws by mistake comes through as it is
 */
export async function check(bytes: Uint8Array): Promise<Outcome> {
  const before = Buffer.from(bytes);
  const source = metered(bytes);
  const counted = await countAllocations(async () => {
    try {
      return await openWeights(source);
    } catch (error) {
      if (error instanceof FormatError) return error;
      throw error;
    }
  });
  const { result } = counted;
  const most = MEMORY_PER_BYTE * bytes.byteLength + MEMORY_AT_LEAST;
  hold(counted.bytes <= most, () => `${counted.bytes} bytes of memory for ${bytes.byteLength}`);
  const memory = counted.bytes / Math.max(1, bytes.byteLength);
  if (result instanceof FormatError) {
    checkError(result, bytes.byteLength);
    const depth = Math.ceil(Math.log2(1 + (result.offset ?? 0)));
    return { signature: `${result.code} ${depth} ${shapeOf(result.message)}`, isValid: false, memory };
  }
  checkLayout(result.layout, bytes.byteLength);
  const unpacked = await unpack(result, source, bytes.byteLength);
  if (unpacked instanceof FormatError) {
    checkError(unpacked, bytes.byteLength);
    return { signature: `${result.layout.format} ${unpacked.code}`, isValid: false, memory };
  }
  await checkRoundTrip(unpacked);
  hold(before.equals(bytes), () => 'the input was written to');
  const { format, tensors, weightingType } = result.layout;
  const kinds = new Set(tensors.map((tensor) => `${tensor.dtype}${tensor.order}${tensor.byteOrder[0]}`));
  const signature = `${format} ${weightingType} ${Math.ceil(Math.log2(tensors.length + 1))} ${[...kinds].sort()}`;
  return { signature, isValid: true, memory };
}

/** Unpacks and compares checksums, which reads everything once more. */
async function unpack(
  weights: Weights,
  source: { spent: Spent },
  length: number,
): Promise<Weights | FormatError> {
  source.spent.bytes = 0;
  source.spent.calls = 0;
  const { result, bytes } = await countAllocations(async () => {
    try {
      return await unpackWeights(weights, { scratch: memoryScratch, maxByteLength: MOST_UNPACKED });
    } catch (error) {
      if (error instanceof FormatError) return error;
      throw error;
    }
  });
  const most = MEMORY_AT_LEAST + MOST_UNPACKED + MEMORY_PER_BYTE * length;
  hold(bytes <= most, () => `${bytes} bytes of memory to unpack ${length}`);
  return result;
}

function checkError(error: FormatError, byteLength: number): void {
  const { code, message, offset } = error;
  hold(/^(npy|pickle|weights|format|npz|zip|st|torch)(-[a-z0-9]+)+$/.test(code), () => `code ${code}`);
  hold(
    offset === undefined || (Number.isSafeInteger(offset) && offset >= 0 && offset <= byteLength),
    () => `${code} at byte ${offset} of ${byteLength}`,
  );
  hold(message.length < 1_500, () => `${code} with a message of ${message.length} characters`);
  hold(!/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u.test(message), () => `control characters: ${JSON.stringify(message)}`);
}

function checkLayout({ tensors, weighting, weightingType, byteLength }: Layout, length: number): void {
  hold(byteLength === length, () => `a layout of ${byteLength} bytes`);
  hold((weighting === null) === (weightingType === null), () => `weighting ${weighting} of ${weightingType}`);
  const names = new Set<string>();
  for (const [i, tensor] of tensors.entries()) {
    const { name, dtype, shape, byteOffset } = tensor;
    hold(Object.hasOwn(DTYPES, dtype), () => `tensor ${i}: dtype ${dtype}`);
    hold(
      shape.length <= 64 && shape.every((n) => Number.isSafeInteger(n) && n >= 0),
      () => `tensor ${i}: shape ${shape}`,
    );
    hold(
      tensor.byteLength === elementCount(shape) * itemSize(dtype) && Number.isSafeInteger(tensor.byteLength),
      () => `tensor ${i}: ${tensor.byteLength} bytes for ${dtype} of ${shape}`,
    );
    hold(
      byteOffset === null || (byteOffset >= 0 && byteOffset + tensor.byteLength <= length),
      () => `tensor ${i}: from ${byteOffset} on, ${tensor.byteLength} bytes`,
    );
    if (name === null) continue;
    hold(!names.has(name), () => `two tensors called ${JSON.stringify(name)}`);
    names.add(name);
  }
}

/** What could be read can be written in the same format, and is then read as the same. */
async function checkRoundTrip({ source, layout }: Weights): Promise<void> {
  // References to one array multiply what a file holds: reading into memory is for models that fit.
  const total = layout.tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  if (total > 1 << 20 || layout.tensors.length > 1_000) return;
  const update = await readTensors(source, layout);
  const options = { format: layout.format, weightingType: layout.weightingType ?? undefined };
  await encodeWeights({ ...options, ...update });
  let sink = memorySink(0);
  await writeWeights((byteLength) => (sink = memorySink(byteLength)), update, options);
  const again = await readTensors(memorySource(sink.bytes));
  hold(
    Object.is(again.weighting, update.weighting),
    () => `weighting ${update.weighting}, then ${again.weighting}`,
  );
  // safetensors has an order of its own, but always names.
  const sorted = (tensors: readonly Tensor[]) =>
    layout.format === 'safetensors' ? [...tensors].sort((a, b) => (a.name! < b.name! ? -1 : 1)) : tensors;
  hold(
    isDeepStrictEqual(sorted(again.tensors), sorted(update.tensors)),
    () => 'written and read again, the tensors are others',
  );
}

/** The begin of a message, without the name of the file and what is particular to one input. */
function shapeOf(message: string): string {
  return message
    .replace(/^[^:]*: /, '')
    .replace(/^tensor "(?:[^"\\]|\\.)*": /, '')
    .replace(/"(?:[^"\\]|\\.)*"?|\d+/g, '#')
    .split(' ')
    .slice(0, 3)
    .join(' ');
}
