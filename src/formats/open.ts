import { type Core, openCore } from '../core/core.ts';
import { readNpyHeader } from '../core/npy.ts';
import type { TensorRecord } from '../core/records.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { npyLayout, type ReadOptions } from './npy.ts';
import { readObjectLayout } from './npy-object.ts';
import { openNpz } from './npz.ts';
import { formatError, refusalError } from './refusals.ts';
import { readSafetensorsLayout } from './safetensors.ts';
import { SNIFF_BYTES, type Sniffed, sniff } from './sniff.ts';
import { isTorchPickle, openTorch } from './torch.ts';
import type { Weights } from './weights.ts';
import { endsLikeZip, readZipDirectory } from './zip.ts';

export type { Weights } from './weights.ts';

/** What is recognised and not read, and what to do about it. */
const UNSUPPORTED: ReadonlyMap<Sniffed, string> = new Map([
  [
    'torch-legacy',
    'a torch file from before 1.6, which is not read; torch.save(torch.load(file), file) renews it',
  ],
  ['zip', 'a zip archive without arrays or a state dict'],
  ['pickle', 'a bare pickle, which is not read; numpy.save, numpy.savez or torch.save writes what is'],
]);

/**
 * Finds out what a weight file holds and where, by its content. Reads a few kilobytes whatever the size of the model,
 * decodes no element and executes nothing.
 *
 * The source stays open and belongs to the caller.
 *
 * @throws FormatError with a code `npy-…`, `pickle-…`, `st-…`, `torch-…`, `zip-…` or `weights-…` for damaged, hostile or foreign content,
 * `format-unsupported` for a container that is recognised but not read, `format-unknown` for anything else
 */
export async function openWeights(source: ByteSource, options: ReadOptions = {}): Promise<Weights> {
  const head = await readHead(source, SNIFF_BYTES);
  const kind = sniff(head, source.byteLength);
  // What is left of a file has its name at least, which can say whose words tell what is wrong with it.
  if (kind === 'safetensors' || (kind === 'unknown' && /\.safetensors$/i.test(source.name))) {
    return { source, layout: await readSafetensorsLayout(source), unpack: null };
  }
  // An archive may begin with a member that is no array, or (which its reader refuses) with something else.
  if (
    kind === 'npz' ||
    kind === 'torch' ||
    kind === 'zip' ||
    (kind === 'unknown' && (await endsLikeZip(source)))
  ) {
    const directory = await readZipDirectory(source);
    const isNpz = kind === 'npz' || directory.some(({ name }) => name.endsWith('.npy'));
    if (isNpz) return openNpz(source, directory, options);
    if (kind === 'torch' || directory.some(isTorchPickle)) return openTorch(source, directory);
  }
  if (kind === 'unknown') {
    throw formatError('format-unknown', 'not a weight file: it is neither .npy nor another known container', {
      file: source.name,
      offset: 0,
    });
  }
  const unsupported = UNSUPPORTED.get(kind);
  if (unsupported !== undefined) {
    throw formatError('format-unsupported', unsupported, { file: source.name, offset: 0 });
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
