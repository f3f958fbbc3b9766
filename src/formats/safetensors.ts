/**
 * `.safetensors`
 *
 *     length of the header  u64, little endian; at most 100,000,000
 *     header                JSON in UTF-8, padded with blanks so that the elements begin at a multiple of 8
 *     elements              little endian, C order; no byte between or behind them
 *
 *     {"__metadata__": {"weighting": "1329"},
 *      "fc.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
 *
 * Offsets count from the end of the header, and the tensors cover what follows it exactly. The reference writer sorts
 * the elements by dtype, widest first, then by name, so that each tensor stands aligned; readers must rely neither on
 * that, nor on the order of the header, nor on the padding. Tensors come out here in the order of their elements; those
 * of a file that has `layer_0` to `layer_n` and nothing else had no names, but an order, and get it back.
 *
 * A file is a weight file of ours when its metadata has `weighting`, a decimal number as text. Other metadata is for
 * others and is not kept.
 *
 * We are stricter than the reference reader (the Rust crate of Hugging Face), which takes the last of two entries of one
 * name, ignores unknown members of an entry, takes an entry as an array, and knows no limit for names and dimensions.
 */
import { MAX_DIMENSIONS, PICKLE_TEXT_LIMIT } from '../../assembly/abi.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { type DType, itemSize } from '../tensor/dtypes.ts';
import type { Layout, TensorLayout } from '../tensor/layout.ts';
import { compareUtf8 } from '../tensor/text.ts';
import type { Encoding, TensorSpec, WeightsSpec } from './encoding.ts';
import { readExactly } from './exact.ts';
import { formatError } from './format-error.ts';
import { JsonReader } from './json.ts';
import { parseWeighting, spellWeighting } from './weighting.ts';

/** Longest header that the reference reads: a length is a claim until so many bytes are there. */
const MAX_HEADER = 100_000_000;

/** The key that is no tensor. */
const METADATA = '__metadata__';

/** The member of the metadata that is ours. */
const WEIGHTING = 'weighting';

/** The member of the metadata that says what a file of ours is that is no weight file. */
export const KIND = 'cambium';

/** Its value for exact partial sums (aggregate/partial-file.ts), and for encoded updates (encoded.ts). */
export const PARTIAL_SUM = 'partial-sum';
export const ENCODED_UPDATE = 'encoded-update';

/** Our dtypes by the format's names, in the order in which its writer sorts them (from the end). */
const DTYPE_NAMES: ReadonlyMap<string, DType> = new Map([
  ['BOOL', 'bool'],
  ['U8', 'uint8'],
  ['I8', 'int8'],
  ['I16', 'int16'],
  ['U16', 'uint16'],
  ['F16', 'float16'],
  ['BF16', 'bfloat16'],
  ['I32', 'int32'],
  ['U32', 'uint32'],
  ['F32', 'float32'],
  ['C64', 'complex64'],
  ['F64', 'float64'],
  ['I64', 'int64'],
  ['U64', 'uint64'],
]);

/** Name and rank of each of our dtypes that the format has. */
const RANKS: ReadonlyMap<DType, readonly [name: string, rank: number]> = new Map(
  [...DTYPE_NAMES].map(([name, dtype], rank) => [dtype, [name, rank]]),
);

/** An entry of the header, and where its parts stand in the file. */
interface Entry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
  readonly offsetsAt: number;
}

/**
 * The layout of a safetensors file. Reads the header and nothing else.
 *
 * @throws FormatError `st-header-size`, `st-json`, `st-dtype`, `st-offsets`, `st-overflow`, `st-duplicate`, `st-limit`;
 *   `weights-form` for a weighting that is no number, `weights-partial-sum` for sums, which are no weights
 */
export async function readSafetensorsLayout(source: ByteSource): Promise<Layout> {
  const { layout, metadata } = await readSafetensors(source);
  checkHoldsWeights(metadata, source.name);
  return layout;
}

/** @throws FormatError `weights-partial-sum` */
export function checkHoldsWeights(metadata: ReadonlyMap<string, string>, file: string): void {
  if (metadata.get(KIND) !== PARTIAL_SUM) return;
  throw formatError(
    'weights-partial-sum',
    'an exact partial sum, not weights; "cambium merge" makes the mean of it',
    { file },
  );
}

/** The same, and the metadata of the file. */
export async function readSafetensors(
  source: ByteSource,
): Promise<{ readonly layout: Layout; readonly metadata: ReadonlyMap<string, string> }> {
  const header = await readHeader(source);
  const dataBegin = 8 + header.byteLength;
  const { entries, weighting, metadata } = new HeaderReader(header, source.name).read();
  // Stable: tensors without elements stay in the order of the header.
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let end = 0;
  for (const { name: tensor, begin, end: next, offsetsAt: offset } of entries) {
    if (begin !== end) {
      const what = begin > end ? `bytes ${end} to ${begin} belong to no tensor` : `byte ${begin} is shared`;
      throw formatError(
        'st-offsets',
        `data_offsets begin at ${begin}, the elements before end at ${end}: ${what}`,
        {
          file: source.name,
          tensor,
          offset,
        },
      );
    }
    end = next;
  }
  const dataLength = source.byteLength - dataBegin;
  if (end !== dataLength) {
    throw formatError('st-offsets', `the tensors take ${end} bytes, but ${dataLength} follow the header`, {
      file: source.name,
      offset: Math.min(dataBegin + end, source.byteLength),
    });
  }
  const layout: Layout = {
    format: 'safetensors',
    weighting: weighting?.value ?? null,
    weightingType: weighting?.type ?? null,
    tensors: withPositions(entries).map(
      ({ name, dtype, shape, begin, end: next }): TensorLayout => ({
        name,
        dtype,
        shape,
        order: 'C',
        byteOrder: 'little',
        byteOffset: dataBegin + begin,
        byteLength: next - begin,
      }),
    ),
    byteLength: source.byteLength,
  };
  return { layout, metadata };
}

/** The entries by position and without names, where their names say positions and nothing else. */
function withPositions(
  entries: readonly Entry[],
): readonly (Entry | (Omit<Entry, 'name'> & { name: null }))[] {
  const layers = new Map(entries.map((entry) => [entry.name, entry]));
  const sorted = entries.map((_, i) => layers.get(`layer_${i}`));
  return sorted.every((entry) => entry !== undefined)
    ? sorted.map((entry) => ({ ...entry, name: null }))
    : entries;
}

async function readHeader(source: ByteSource): Promise<Uint8Array> {
  const { name: file, byteLength } = source;
  const refuse = (sentence: string, offset: number) =>
    formatError('st-header-size', sentence, { file, offset });
  if (byteLength < 8) {
    throw refuse(`the file has ${byteLength} bytes; the length of the header takes 8`, byteLength);
  }
  const prefix = new Uint8Array(8);
  const view = new DataView(prefix.buffer);
  await readExactly(source, 0, prefix, 'st-header-size');
  const length = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  if (length > MAX_HEADER) throw refuse(`a header of ${length} bytes; at most ${MAX_HEADER} can be`, 0);
  if (length > byteLength - 8) {
    throw refuse(`a header of ${length} bytes, but ${byteLength - 8} bytes follow its length`, 0);
  }
  const header = new Uint8Array(length);
  await readExactly(source, 8, header, 'st-header-size');
  return header;
}

class HeaderReader {
  readonly #json: JsonReader;
  readonly #file: string;
  /** The entry that is being read. */
  #tensor: string | undefined;

  constructor(header: Uint8Array, file: string) {
    this.#file = file;
    this.#json = new JsonReader(header, (at, sentence) => this.#refuse('st-json', sentence, at));
  }

  read(): {
    entries: Entry[];
    weighting: { value: number; type: 'int' | 'float' } | null;
    metadata: Map<string, string>;
  } {
    const metadata = new Map<string, string>();
    const json = this.#json;
    const entries: Entry[] = [];
    const seen = new Set<string>();
    let weighting = null;
    for (const { key, at } of json.members()) {
      this.#checkNew(seen, key, at);
      if (key === METADATA) weighting = this.#readMetadata(metadata);
      else {
        entries.push(this.#readEntry(key, at));
        this.#tensor = undefined;
      }
    }
    if (!json.atEnd()) this.#refuse('st-json', 'something follows the object that the header is', json.at);
    return { entries, weighting, metadata };
  }

  #readMetadata(metadata: Map<string, string>) {
    let weighting = null;
    const seen = new Set<string>();
    for (const { key, at } of this.#json.members()) {
      this.#checkNew(seen, key, at);
      const valueAt = this.#json.at;
      const text = this.#json.readText();
      metadata.set(key, text);
      if (key === WEIGHTING) weighting = this.#weightingOf(text, valueAt);
    }
    return weighting;
  }

  #weightingOf(text: string, at: number): { value: number; type: 'int' | 'float' } {
    const weighting = parseWeighting(text);
    if (weighting === undefined) {
      const shown = JSON.stringify(text.slice(0, 40));
      this.#refuse(
        'weights-form',
        `the weighting must be a decimal number, whole ones up to 2^53 - 1; it is ${shown}`,
        at,
      );
    }
    return weighting;
  }

  #readEntry(name: string, at: number): Entry {
    if (name.length > PICKLE_TEXT_LIMIT || new TextEncoder().encode(name).byteLength > PICKLE_TEXT_LIMIT) {
      this.#refuse('st-limit', `the name of a tensor has more than ${PICKLE_TEXT_LIMIT} bytes`, at);
    }
    this.#tensor = name;
    const json = this.#json;
    let dtype: DType | undefined;
    let shape: number[] | undefined;
    let offsets: number[] | undefined;
    let shapeAt = at;
    let offsetsAt = at;
    const seen = new Set<string>();
    for (const member of json.members()) {
      this.#checkNew(seen, member.key, member.at);
      switch (member.key) {
        case 'dtype':
          dtype = this.#readDType();
          break;
        case 'shape':
          shapeAt = json.at;
          shape = json.readWholes();
          break;
        case 'data_offsets':
          offsetsAt = json.at;
          offsets = json.readWholes();
          break;
        default:
          this.#refuse(
            'st-json',
            'an entry has dtype, shape and data_offsets, and no other member',
            member.at,
          );
      }
    }
    const [begin, end] = offsets ?? [];
    if (dtype === undefined || shape === undefined || offsets === undefined) {
      return this.#refuse('st-json', 'an entry must have dtype, shape and data_offsets', at);
    }
    if (begin === undefined || end === undefined || offsets.length > 2) {
      return this.#refuse('st-json', 'data_offsets must be two numbers, begin and end', offsetsAt);
    }
    if (shape.length > MAX_DIMENSIONS) {
      this.#refuse('st-limit', `${shape.length} dimensions; at most ${MAX_DIMENSIONS} can be`, shapeAt);
    }
    const byteLength = lengthOf(shape, dtype);
    if (byteLength === undefined) {
      return this.#refuse('st-overflow', 'the shape means more than 2^53 - 1 bytes', shapeAt);
    }
    if (end - begin !== byteLength) {
      this.#refuse(
        'st-offsets',
        end === Infinity
          ? 'data_offsets lie beyond 2^53 - 1'
          : end < begin
            ? `data_offsets end at ${end}, before they begin at ${begin}`
            : `data_offsets mean ${end - begin} bytes, shape and dtype mean ${byteLength}`,
        offsetsAt,
      );
    }
    return { name, dtype, shape, begin, end, offsetsAt: 8 + offsetsAt };
  }

  #readDType(): DType {
    const at = this.#json.at;
    const name = this.#json.readText();
    const dtype = DTYPE_NAMES.get(name);
    if (dtype !== undefined) return dtype;
    const shown = JSON.stringify(name.slice(0, 40));
    return this.#refuse(
      'st-dtype',
      `elements of dtype ${shown} are not read; ${[...DTYPE_NAMES.keys()].join(', ')} are`,
      at,
    );
  }

  /** Two values under one key: whoever reads the file next may take the other one. */
  #checkNew(seen: Set<string>, key: string, at: number): void {
    if (seen.has(key))
      this.#refuse('st-duplicate', `${JSON.stringify(key.slice(0, 100))} is there twice`, at);
    seen.add(key);
  }

  /** @param at position in the header */
  #refuse(code: string, sentence: string, at: number): never {
    throw formatError(code, sentence, { file: this.#file, tensor: this.#tensor, offset: 8 + at });
  }
}

/**
 * Bytes of a tensor; undefined where that, or a step on the way there, is beyond 2^53 - 1. As in the reference, a zero
 * makes only the dimensions behind it harmless.
 */
function lengthOf(shape: readonly number[], dtype: DType): number | undefined {
  if (!shape.every((dimension) => Number.isSafeInteger(dimension))) return undefined;
  let byteLength = itemSize(dtype);
  for (const dimension of shape) {
    byteLength *= dimension;
    if (!Number.isSafeInteger(byteLength)) return undefined;
  }
  return byteLength;
}

/**
 * A safetensors file without its elements.
 *
 * Tensors without a name are called `layer_0`, `layer_1`, … by their positions.
 *
 * @param metadata goes into the header as it is, besides the weighting
 * @param headerLength least length of the header, which is padded up to it: for who writes the header last
 * @throws RangeError for a dtype that the format does not have, names that repeat or mean something else, a weighting
 *   that is no finite number, and a header of more than 100,000,000 bytes
 */
export function encodeSafetensors(
  { weighting, weightingType, tensors }: Omit<WeightsSpec, 'format'>,
  metadata: Readonly<Record<string, string>> = {},
  headerLength = 0,
): Encoding {
  const named = tensors.map(nameEntry);
  const names = new Set(named.map(({ name }) => name));
  if (names.size < named.length) {
    const twice = named.find(({ name }) => !names.delete(name));
    throw new RangeError(`two tensors are called ${JSON.stringify(twice?.name)}`);
  }
  const sorted = [...named].sort((a, b) => b.rank - a.rank || compareUtf8(a.name, b.name));
  const known =
    weighting === null ? metadata : { [WEIGHTING]: spellWeighting(weighting, weightingType), ...metadata };
  const members = Object.keys(known).length === 0 ? [] : [`"${METADATA}":${JSON.stringify(known)}`];
  const payloads: { offset: number; byteLength: number }[] = [];
  let end = 0;
  for (const { name, dtypeName, shape, byteLength, position } of sorted) {
    payloads[position] = { offset: end, byteLength };
    members.push(
      `${JSON.stringify(name)}:{"dtype":"${dtypeName}","shape":[${shape.join(',')}],"data_offsets":[${end},${end + byteLength}]}`,
    );
    end += byteLength;
  }
  const text = new TextEncoder().encode(`{${members.join(',')}}`);
  const length = Math.ceil(Math.max(text.byteLength, headerLength) / 8) * 8;
  if (length > MAX_HEADER)
    throw new RangeError(`the header would have ${length} bytes, more than ${MAX_HEADER}`);
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(text, 8);
  return {
    byteLength: bytes.byteLength + end,
    literals: [{ offset: 0, bytes }],
    payloads: payloads.map(({ offset, byteLength }) => ({ offset: bytes.byteLength + offset, byteLength })),
  };
}

function nameEntry({ name: given, dtype, shape }: TensorSpec, position: number) {
  const [dtypeName, rank] = RANKS.get(dtype) ?? [];
  if (dtypeName === undefined || rank === undefined) {
    throw new RangeError(`a safetensors file holds no ${dtype}`);
  }
  const byteLength = lengthOf(shape, dtype);
  if (byteLength === undefined) throw new RangeError(`shape (${shape.join(', ')}) is too large`);
  const name = given ?? `layer_${position}`;
  if (name === METADATA) throw new RangeError(`${METADATA} cannot be the name of a tensor`);
  if (/\p{Surrogate}/u.test(name)) {
    throw new RangeError(
      `${JSON.stringify(name)} has half of a surrogate pair, which UTF-8 has no bytes for`,
    );
  }
  return { name, dtypeName, rank, shape, byteLength, position };
}
