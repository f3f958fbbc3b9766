/**
 * Readers of archives and safetensors are loaded when a file of theirs is opened: a page that lives on .npy files never
 * fetches them.
 */
import { type Core, openCore } from '../core/core.ts';
import { readNpyHeader } from '../core/npy.ts';
import type { TensorRecord } from '../core/records.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { readExactly } from './exact.ts';
import { formatError, refusalError } from './format-error.ts';
import { npyLayout, type ReadOptions } from './npy.ts';
import { openNpyObject } from './npy-object.ts';
import { SNIFF_BYTES, type Sniffed, sniff } from './sniff.ts';
import type { Weights } from './weights.ts';

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
 * @throws FormatError with a code `npy-…`, `pickle-…`, `st-…`, `encoded-…`, `torch-…`, `zip-…` or `weights-…` for damaged,
 *   hostile or foreign content, `format-unsupported` for a container that is recognised but not read, `format-unknown` for
 *   anything else; what the source throws
 */
export async function openWeights(source: ByteSource, options: ReadOptions = {}): Promise<Weights> {
  const head = await readHead(source, SNIFF_BYTES);
  const kind = sniff(head, source.byteLength);
  // What is left of a file has its name at least, which can say whose words tell what is wrong with it.
  if (kind === 'safetensors' || (kind === 'unknown' && /\.safetensors$/i.test(source.name))) {
    const { checkHoldsWeights, ENCODED_UPDATE, KIND, readSafetensors } = await import('./safetensors.ts');
    const { layout, metadata } = await readSafetensors(source);
    if (metadata.get(KIND) === ENCODED_UPDATE) {
      return (await import('./encoded.ts')).openEncoded(source, layout, metadata);
    }
    checkHoldsWeights(metadata, source.name);
    return { source, layout, unpack: null };
  }
  // An archive may begin with a member that is no array, or (which its reader refuses) with something else.
  if (kind === 'npz' || kind === 'torch' || kind === 'zip' || kind === 'unknown') {
    const weights = await openArchive(source, kind, options);
    if (weights !== undefined) return weights;
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
    if (header.dtype === 0) return await openNpyObject(source, core, header, options);
    return { source, layout: npyLayout(header, source.name, source.byteLength, options), unpack: null };
  } finally {
    core.close();
  }
}

/** The weights in an archive; undefined when it holds none, or is none. */
async function openArchive(
  source: ByteSource,
  kind: Sniffed,
  options: ReadOptions,
): Promise<Weights | undefined> {
  const { endsLikeZip, readZipDirectory } = await import('./zip.ts');
  if (kind === 'unknown' && !(await endsLikeZip(source))) return undefined;
  const directory = await readZipDirectory(source);
  if (kind === 'npz' || directory.some(({ name }) => name.endsWith('.npy'))) {
    const { openNpz } = await import('./npz.ts');
    return openNpz(source, directory, options);
  }
  const { isTorchPickle, openTorch } = await import('./torch.ts');
  return kind === 'torch' || directory.some(isTorchPickle) ? openTorch(source, directory) : undefined;
}

async function readHeader(source: ByteSource, core: Core, head: Uint8Array): Promise<TensorRecord> {
  for (let bytes = head; ; ) {
    const step = readNpyHeader(core, bytes, source.byteLength);
    if (step.kind === 'npy') return step.record;
    if (step.kind === 'refused') throw await refusalError(step, source.name);
    bytes = await readHead(source, step.byteLength);
  }
}

/** The first bytes of a source, fewer when it is shorter. */
async function readHead(source: ByteSource, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(Math.min(length, source.byteLength));
  await readExactly(source, 0, bytes, 'npy-truncated');
  return bytes;
}
