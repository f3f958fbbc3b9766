import { memorySource } from '../tensor/bytes.ts';
import type { Encoding, Literal } from './encoding.ts';
import { readZipDirectory } from './zip.ts';
import { encodeZip, type NewMember } from './zip-writer.ts';

/** Members that are deflated at the same time. */
const PARALLEL = 4;

/** The archive of stored members again, deflated by the host. It is held in memory, stored and deflated. */
export async function deflateArchive(pieces: readonly Literal[], byteLength: number): Promise<Encoding> {
  const archive = new Uint8Array(byteLength);
  for (const { offset, bytes } of pieces) archive.set(bytes, offset);
  const stored = await readZipDirectory(memorySource(archive, 'the archive'));
  const members: NewMember[] = [];
  for (let i = 0; i < stored.length; i += PARALLEL) {
    const deflating = stored.slice(i, i + PARALLEL).map(async ({ name, crc32, byteOffset, byteLength }) => ({
      name,
      bytes: await deflate(archive.subarray(byteOffset, byteOffset + byteLength)),
      payload: null,
      deflated: { byteLength, crc32 },
    }));
    members.push(...(await Promise.all(deflating)));
  }
  return encodeZip(members);
}

async function deflate(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream('deflate-raw'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
