import { bytesOf, u32, u64 } from './pickles.ts';
import { type ZipPart, zipOf } from './zips.ts';

/** Text of a pickle. */
export const unicode = (text: string) =>
  `X${u32(Buffer.byteLength(text))}${Buffer.from(text).toString('latin1')}`;

const int = (value: number) => (Math.abs(value) < 2 ** 31 ? `J${u32(value >>> 0)}` : `\x8a\x08${u64(value)}`);

const tuple = (values: readonly number[]) => `(${values.map(int).join('')}t`;

/** The persistent id of a storage, and BINPERSID. */
export const storageOpcodes = (key: string, elements: number, type = 'FloatStorage') =>
  `(${unicode('storage')}ctorch\n${type}\n${unicode(key)}${unicode('cpu')}${int(elements)}tQ`;

/** A tensor: a view of a storage. */
export const viewOpcodes = (
  storage: string,
  first: number,
  shape: readonly number[],
  strides: readonly number[],
) =>
  `ctorch._utils\n_rebuild_tensor_v2\n(${storage}${int(first)}${tuple(shape)}${tuple(strides)}\x89ccollections\nOrderedDict\n)RtR`;

/** A dictionary. */
export const dictOpcodes = (...entries: readonly (readonly [key: string, value: string])[]) =>
  `}(${entries.map(([key, value]) => unicode(key) + value).join('')}u`;

/** An archive as torch.save lays it out, around the opcodes of its object and with some members. */
export function torchArchive(
  object: string,
  members: Readonly<Record<string, Uint8Array | ZipPart>> = {},
  protocol = 2,
): Uint8Array {
  const parts: ZipPart[] = [
    { name: 'archive/data.pkl', data: bytesOf(0x80, protocol, object, '.'), descriptor: 32 },
  ];
  for (const [name, content] of Object.entries(members)) {
    const part = content instanceof Uint8Array ? { name, data: content, descriptor: 32 as const } : content;
    parts.push({ ...part, name: `archive/${name}` });
  }
  return zipOf(parts, { zip64: true });
}
