import { type Core, openCore } from '../core/core.ts';
import { readNpyHeader } from '../core/npy.ts';
import type { TensorRecord } from '../core/records.ts';
import type { ByteSource, ScratchFactory } from '../tensor/bytes.ts';
import type { Layout } from '../tensor/layout.ts';
import { npyLayout, type ReadOptions } from './npy.ts';
import { readObjectLayout } from './npy-object.ts';
import { formatError, refusalError } from './refusals.ts';
import { readSafetensorsLayout } from './safetensors.ts';
import { SNIFF_BYTES, type Sniffed, sniff } from './sniff.ts';

/** What unpacking needs of the host. */
export interface UnpackOptions {
  /** Where unpacked elements go. */
  readonly scratch: ScratchFactory;
}

/** A weight file whose layout is known. */
export interface Weights {
  readonly source: ByteSource;
  readonly layout: Layout;
  /**
   * Null when the elements of every tensor are contiguous in the file. Else (compressed members) gives the same weights
   * with a source in which they are and a layout that says where; that source is closed by the caller, and the one
   * below it stays the caller's too.
   */
  readonly unpack: ((options: UnpackOptions) => Promise<Weights>) | null;
}

const UNSUPPORTED: Readonly<Record<Exclude<Sniffed, 'npy' | 'safetensors' | 'unknown'>, string>> = {
  npz: 'an .npz archive',
  torch: 'a torch archive',
  zip: 'a zip archive',
  pickle: 'a bare pickle',
};

/**
 * Finds out what a weight file holds and where, by its content. Reads a few kilobytes whatever the size of the model,
 * decodes no element and executes nothing.
 *
 * The source stays open and belongs to the caller.
 *
 * @throws FormatError with a code `npy-…`, `pickle-…`, `st-…` or `weights-…` for damaged, hostile or foreign content,
 * `format-unsupported` for a container that is recognised but not read, `format-unknown` for anything else
 */
export async function openWeights(source: ByteSource, options: ReadOptions = {}): Promise<Weights> {
  const head = await readHead(source, SNIFF_BYTES);
  const kind = sniff(head, source.byteLength);
  // What is left of a file has its name at least, which can say whose words tell what is wrong with it.
  if (kind === 'safetensors' || (kind === 'unknown' && /\.safetensors$/i.test(source.name))) {
    return { source, layout: await readSafetensorsLayout(source), unpack: null };
  }
  if (kind === 'unknown') {
    throw formatError('format-unknown', 'not a weight file: it is neither .npy nor another known container', {
      file: source.name,
      offset: 0,
    });
  }
  if (kind !== 'npy') {
    throw formatError('format-unsupported', `${UNSUPPORTED[kind]}, which is not read yet; use .npy`, {
      file: source.name,
      offset: 0,
    });
  }
  const core = await openCore();
  try {
    const header = await readHeader(source, core, head);
    const layout =
      header.dtype === 0
        ? await readObjectLayout(source, core, header, options)
        : npyLayout(header, source.name, source.byteLength, options);
    return { source, layout, unpack: null };
  } finally {
    core.close();
  }
}

async function readHeader(source: ByteSource, core: Core, head: Uint8Array): Promise<TensorRecord> {
  for (let bytes = head; ; ) {
    const step = readNpyHeader(core, bytes, source.byteLength);
    if (step.kind === 'npy') return step.record;
    if (step.kind === 'refused') throw refusalError(step, source.name);
    bytes = await readHead(source, step.byteLength);
  }
}

/** The first bytes of a source, fewer when it is shorter. */
async function readHead(source: ByteSource, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(Math.min(length, source.byteLength));
  const read = await source.readInto(0, bytes);
  if (read < bytes.byteLength) {
    throw formatError('npy-truncated', 'the file became shorter while it was read', {
      file: source.name,
      offset: read,
    });
  }
  return bytes;
}
