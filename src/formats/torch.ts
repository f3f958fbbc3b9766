/**
 * torch's archive of a state dict: what torch.save writes since 1.6. A zip archive that stores its members:
 *
 *     <folder>/data.pkl                a pickle (protocol 2) of the OrderedDict from names to tensors
 *     <folder>/data/<key>              the raw elements of one storage
 *     <folder>/version                 "3"
 *     <folder>/byteorder               "little" or "big"; from 2.1 on, little without it
 *     <folder>/weighting               ours: the weighting as decimal text, which torch does not look at
 *     <folder>/.format_version, .storage_alignment, .data/serialization_id      not looked at
 *
 * torch lets storages begin at multiples of 64 by an extra field "FB" in the local headers. A tensor is a view of a
 * storage: first element, shape and strides, all counted in elements. Several tensors may view one storage, and a view
 * may be transposed, have gaps, or (stride 0) show an element many times. Views that are contiguous in C or Fortran
 * order have their place in the archive; others are gathered by `unpack`.
 *
 * We read one dictionary from texts to tensors, as `model.state_dict()` gives it (parameters count as their tensors).
 * Checkpoints with other things in them, whole modules and TorchScript are refused: those hold programs. Each view must
 * lie within its storage, each storage must have exactly the bytes that it declares. The checksums of the archive are
 * not compared: torch has an option not to compute them.
 */
import { type Core, openCore } from '../core/core.ts';
import type { ViewRecord } from '../core/records.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { dtypeOfCode, itemSize } from '../tensor/dtypes.ts';
import { elementCount, type Layout, type TensorLayout } from '../tensor/layout.ts';
import { formatError, refusalError } from './format-error.ts';
import { decodeNames, walkPickle } from './pickle.ts';
import { maxExpanded } from './unpack.ts';
import { gatherViews, type View } from './views.ts';
import { parseWeighting } from './weighting.ts';
import type { UnpackOptions, Weights } from './weights.ts';
import type { ZipMember } from './zip.ts';

/** Longer than any text that a member may be. */
const MAX_MEMBER_TEXT = 400;

/** The layout of an archive whose directory was read. */
export async function openTorch(source: ByteSource, directory: readonly ZipMember[]): Promise<Weights> {
  const archive = new TorchArchive(source, directory);
  await archive.checkByteOrder();
  const records = await archive.readPickle();
  const names = withoutPositions(decodeNames(records, source.name));
  const weighting = await archive.readWeighting();
  const views = records.map((record, i) => archive.resolve(record, i));
  const layout: Layout = {
    format: 'torch',
    weighting: weighting?.value ?? null,
    weightingType: weighting?.type ?? null,
    tensors: views.map(
      ({ dtype, shape, order, byteOffset, byteLength }, i): TensorLayout => ({
        name: names[i] ?? null,
        dtype,
        shape,
        order: order ?? 'C',
        byteOrder: 'little',
        byteOffset: order === null ? null : byteOffset,
        byteLength,
      }),
    ),
    byteLength: source.byteLength,
  };
  const scattered = views.filter(({ order }) => order === null);
  if (scattered.length === 0) return { source, layout, unpack: null };
  const room = scattered.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const most = maxExpanded(source); // an expanded tensor of a few bytes could mean any number of them
  if (room > most) {
    throw archive.error(
      'torch-storage',
      `its views mean ${room} bytes; at most ${most} are made of a file of ${source.byteLength}`,
      archive.pickle.byteOffset,
    );
  }
  return {
    source,
    layout,
    unpack: async (options: UnpackOptions): Promise<Weights> => ({
      ...(await gatherViews(source, layout, views, options)),
      unpack: null,
    }),
  };
}

/** Whether a member is what makes an archive one of torch. */
export function isTorchPickle({ name }: ZipMember): boolean {
  return /^[^/]+\/data\.pkl$/.test(name);
}

class TorchArchive {
  readonly pickle: ZipMember;
  readonly #source: ByteSource;
  readonly #folder: string;
  readonly #members: ReadonlyMap<string, ZipMember>;

  constructor(source: ByteSource, directory: readonly ZipMember[]) {
    this.#source = source;
    this.#members = new Map(directory.map((member) => [member.name, member]));
    const [pickle, another] = directory.filter(isTorchPickle);
    if (pickle === undefined || another !== undefined) {
      throw this.error('weights-form', 'an archive of torch holds one <folder>/data.pkl', 0);
    }
    this.pickle = pickle;
    this.#folder = pickle.name.slice(0, -'data.pkl'.length);
    if (this.#members.has(`${this.#folder}constants.pkl`)) {
      throw this.error(
        'weights-form',
        'a TorchScript program, which is not run here; torch.save(model.state_dict(), file) writes its weights',
        0,
      );
    }
  }

  /** @throws FormatError `torch-byteorder` unless the elements are little endian */
  async checkByteOrder(): Promise<void> {
    const order = await this.#readText('byteorder');
    if (order === undefined || order.text === 'little') return;
    const what =
      order.text === 'big' ? 'a big-endian machine wrote the archive' : 'the byte order is unknown';
    throw this.error('torch-byteorder', `${what}; little-endian archives are read`, order.offset);
  }

  async readWeighting(): Promise<ReturnType<typeof parseWeighting>> {
    const member = await this.#readText('weighting');
    if (member === undefined) return undefined;
    const weighting = parseWeighting(member.text);
    if (weighting !== undefined) return weighting;
    throw this.error(
      'weights-form',
      'the weighting must be a decimal number, whole ones up to 2^53 - 1; it is something else',
      member.offset,
    );
  }

  /** A member that is a short text. What is too long for one comes out as a text that is none of those expected. */
  async #readText(name: string): Promise<{ text: string; offset: number } | undefined> {
    const member = this.#members.get(this.#folder + name);
    if (member === undefined) return undefined;
    this.#checkStored(member);
    const bytes = new Uint8Array(Math.min(member.byteLength, MAX_MEMBER_TEXT + 1));
    await this.#source.readInto(member.byteOffset, bytes);
    return { text: new TextDecoder('latin1').decode(bytes), offset: member.byteOffset };
  }

  async readPickle(): Promise<readonly ViewRecord[]> {
    const { byteOffset, byteLength } = this.pickle;
    this.#checkStored(this.pickle);
    const core: Core = await openCore();
    try {
      const place = { begin: byteOffset, end: byteOffset + byteLength, isTorch: true };
      const { walk } = await walkPickle(this.#source, core, place);
      const taken = walk.takeViews();
      if (taken.kind === 'refused') throw await refusalError(taken, this.#source.name, taken.tensor);
      return taken.records;
    } finally {
      core.close();
    }
  }

  /** Finds the storage of a view and checks that the view lies within it. */
  resolve(record: ViewRecord, tensor: number): View {
    const { shape, strides, first, storageElements } = record;
    const refuse = (sentence: string, offset = record.nameOffset) =>
      this.error('torch-storage', sentence, offset, tensor);
    const dtype = dtypeOfCode(record.dtype);
    const size = itemSize(dtype);
    const key = new TextDecoder().decode(record.key);
    const member = this.#members.get(`${this.#folder}data/${key}`);
    if (member === undefined) throw refuse(`its storage data/${key.slice(0, 100)} is missing`);
    this.#checkStored(member, tensor);
    if (storageElements * size !== member.byteLength) {
      throw refuse(
        `its storage declares ${storageElements} elements of ${size} bytes, but has ${member.byteLength} bytes`,
        member.byteOffset,
      );
    }
    if ([first, ...shape, ...strides].some((number) => number < 0)) {
      throw refuse('offset, shape and strides must not be negative');
    }
    // A product may only become inexact above 2^53, and stays there. A 0 among the dimensions must hide no overflow.
    const byteLength = elementCount(shape.map((dimension) => dimension || 1)) * size;
    if (byteLength > Number.MAX_SAFE_INTEGER) throw refuse('its shape means more than 2^53 - 1 bytes');
    const isEmpty = shape.includes(0);
    const last = shape.reduce((sum, dimension, axis) => sum + (dimension - 1) * strides[axis]!, first);
    if (!isEmpty && last >= storageElements) {
      throw refuse(`it reaches to element ${last} of a storage of ${storageElements}`);
    }
    return {
      dtype,
      shape,
      strides,
      order: isEmpty ? 'C' : orderOf(shape, strides),
      byteOffset: member.byteOffset + (isEmpty ? 0 : first * size),
      byteLength: isEmpty ? 0 : byteLength,
    };
  }

  #checkStored({ name, method, byteOffset }: ZipMember, tensor?: number): void {
    if (method === 'stored') return;
    throw this.error(
      'torch-storage',
      `${JSON.stringify(name)} is compressed, which torch never does`,
      byteOffset,
      tensor,
    );
  }

  error(code: string, sentence: string, offset: number, tensor?: number): Error {
    return formatError(code, sentence, { file: this.#source.name, tensor, offset });
  }
}

/** Positions where the names are `layer_0`, `layer_1`, … in this order, which is how tensors without names are written. */
function withoutPositions(names: readonly (string | null)[]): readonly (string | null)[] {
  return names.every((name, i) => name === `layer_${i}`) ? names.map(() => null) : names;
}

/** The order in which a view is contiguous, null for neither. Strides of axes of one index mean nothing. */
function orderOf(shape: readonly number[], strides: readonly number[]): 'C' | 'F' | null {
  const axes = shape.map((dimension, axis) => ({ dimension, stride: strides[axis]! }));
  const isDense = (ordered: typeof axes) => {
    let expected = 1;
    return ordered.every(({ dimension, stride }) => {
      const isNext = dimension === 1 || stride === expected;
      expected *= dimension;
      return isNext;
    });
  };
  if (isDense([...axes].reverse())) return 'C';
  return isDense(axes) ? 'F' : null;
}
