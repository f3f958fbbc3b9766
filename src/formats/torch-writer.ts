import { MAX_TENSORS } from '../../assembly/abi.ts';
import type { DType } from '../tensor/dtypes.ts';
import { elementCount } from '../tensor/layout.ts';
import type { Encoding, WeightsSpec } from './encoding.ts';
import { spellWeighting } from './weighting.ts';
import { encodeZip, type NewMember } from './zip-writer.ts';

/** Storage classes of torch; it has none for the other dtypes. */
const STORAGES: ReadonlyMap<DType, string> = new Map([
  ['bool', 'Bool'],
  ['int8', 'Char'],
  ['uint8', 'Byte'],
  ['int16', 'Short'],
  ['int32', 'Int'],
  ['int64', 'Long'],
  ['float16', 'Half'],
  ['bfloat16', 'BFloat16'],
  ['float32', 'Float'],
  ['float64', 'Double'],
  ['complex64', 'ComplexFloat'],
  ['complex128', 'ComplexDouble'],
]);

/** Entries between a MARK and its SETITEMS, as Python has it. */
const BATCH = 1000;

/** Where torch lets storages begin. */
const ALIGNMENT = 64;

/**
 * A state dict as torch.save lays it out: each tensor has a storage of its own, on the processor. Tensors without a name
 * are `layer_0`, `layer_1`, … by their positions. torch.load reads it with `weights_only` and without, and does not see the
 * weighting.
 *
 * @throws RangeError for dtypes that torch has no storage for, and for names that are not unlike each other
 *   or have no UTF-8 form, and for a weighting that is no finite number
 */
export function encodeTorch(spec: WeightsSpec, lengths: readonly number[]): Encoding {
  const { weighting, weightingType, tensors } = spec;
  if (tensors.length > MAX_TENSORS) {
    throw new RangeError(`a weight file holds at most ${MAX_TENSORS} tensors, not ${tensors.length}`);
  }
  const encoder = new TextEncoder();
  const member = (name: string, text: string): NewMember => ({
    name: `archive/${name}`,
    bytes: encoder.encode(text),
    payload: null,
  });
  return encodeZip(
    [
      { name: 'archive/data.pkl', bytes: pickleOf(tensors), payload: null },
      member('byteorder', 'little'),
      ...tensors.map((_, i) => ({
        name: `archive/data/${i}`,
        bytes: new Uint8Array(),
        payload: lengths[i]!,
      })),
      member('version', '3\n'),
      ...(weighting === null ? [] : [member('weighting', spellWeighting(weighting, weightingType))]),
    ],
    ALIGNMENT,
  );
}

/** The pickle of an OrderedDict from names to tensors, protocol 2. */
function pickleOf(tensors: WeightsSpec['tensors']): Uint8Array {
  const memo = new Map<string, number>();
  /** Spells a value, which from the second time on is fetched from the memo. */
  const shared = (opcodes: string) => {
    const known = memo.get(opcodes);
    if (known !== undefined) return `h${byte(known)}`;
    memo.set(opcodes, memo.size);
    return `${opcodes}q${byte(memo.size - 1)}`;
  };
  const dict = () => `${shared('ccollections\nOrderedDict\n')})R`;
  const seen = new Set<string>();
  let text = `\x80\x02${dict()}`;
  for (const [i, { name: given, dtype, shape }] of tensors.entries()) {
    const name = given ?? `layer_${i}`;
    if (/\p{Surrogate}/u.test(name)) {
      throw new RangeError(`the name ${JSON.stringify(name)} has no UTF-8 form`);
    }
    if (seen.has(name)) throw new RangeError(`two tensors are called ${JSON.stringify(name)}`);
    seen.add(name);
    const storage = STORAGES.get(dtype);
    if (storage === undefined) throw new RangeError(`torch has no storage for ${dtype}`);
    const strides = shape.map((_, axis) =>
      elementCount(shape.slice(axis + 1).map((dimension) => dimension || 1)),
    );
    if (i % BATCH === 0) text += i === 0 ? '(' : 'u(';
    text += unicode(name) + shared('ctorch._utils\n_rebuild_tensor_v2\n');
    text += `((${shared(unicode('storage'))}${shared(`ctorch\n${storage}Storage\n`)}${unicode(String(i))}`;
    text += `${shared(unicode('cpu'))}${int(elementCount(shape))}tQ`;
    text += `${int(0)}${tuple(shape)}${tuple(strides)}\x89${dict()}tR`;
  }
  return Uint8Array.from(`${text}${tensors.length > 0 ? 'u' : ''}.`, (character) => character.charCodeAt(0));
}

const byte = (value: number) => String.fromCharCode(value & 255);

/** Little endian. */
function bytes(value: number, size: number): string {
  let text = '';
  for (let rest = value; text.length < size; rest = Math.floor(rest / 256)) text += byte(rest % 256);
  return text;
}

function unicode(text: string): string {
  const encoded = new TextEncoder().encode(text);
  return `X${bytes(encoded.byteLength, 4)}${Array.from(encoded, byte).join('')}`;
}

/** A whole number that is not negative. */
function int(value: number): string {
  if (value < 2 ** 8) return `K${bytes(value, 1)}`;
  if (value < 2 ** 16) return `M${bytes(value, 2)}`;
  return value < 2 ** 31 ? `J${bytes(value, 4)}` : `\x8a\x08${bytes(value, 8)}`;
}

function tuple(values: readonly number[]): string {
  const items = values.map(int).join('');
  if (values.length > 3) return `(${items}t`;
  return `${items}${[')', '\x85', '\x86', '\x87'][values.length]}`;
}
