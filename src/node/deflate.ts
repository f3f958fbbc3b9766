/**
 * Archives, deflated in constant memory.
 *
 * What a member deflates to is known when it is deflated, and everything behind it moves with that. So the archive is
 * made of stored members first, in scratch room; each is then deflated to a place of its own in more scratch room, several
 * at the same time; and when all lengths are known the output is written front to back.
 */
import { pipeline, Readable } from 'node:stream';
import { createDeflateRaw } from 'node:zlib';
import type { RunOptions } from '../aggregate/aggregation.ts';
import type { Encoding } from '../formats/encoding.ts';
import { readZipDirectory, type ZipMember } from '../formats/zip.ts';
import { encodeZip } from '../formats/zip-writer.ts';
import { type ByteSink, type ByteSource, readAll, type ScratchFactory } from '../tensor/bytes.ts';

/** Members that are deflated at the same time, each on a thread of Node's pool. */
const PARALLEL = 4;

/** Bytes that go into or come out of zlib, or are copied, at a time. */
const BLOCK = 256 << 10;

/** What deflate cannot shrink grows by five bytes for each 16 KiB at most: there is room for a thousandth, and a little. */
const most = (byteLength: number) => byteLength + Math.ceil(byteLength / 1000) + 64;

/** A deflated archive: where its bytes are that are not literals. */
interface Deflated {
  readonly encoding: Encoding;
  /** Payload i of the encoding stands here from `places[i]` on. */
  readonly packed: ByteSource;
  readonly places: readonly number[];
}

/**
 * Deflates the members of an archive that are stored, at zlib's usual level, as numpy.savez_compressed does.
 *
 * @returns what the caller closes: `packed`
 * @throws what `scratch` and `archive` throw; the reason of `signal`
 */
export async function deflateMembers(
  archive: ByteSource,
  scratch: ScratchFactory,
  { signal, onProgress }: Pick<RunOptions, 'signal' | 'onProgress'>,
): Promise<Deflated> {
  const members = await readZipDirectory(archive);
  const places: number[] = [];
  let room = 0;
  for (const { byteLength } of members) {
    places.push(room);
    room += most(byteLength);
  }
  const packed = await scratch(room);
  const lengths: number[] = members.map(() => 0);
  let bytesDone = 0;
  async function* read({ byteOffset, byteLength }: ZipMember) {
    for (let at = 0; at < byteLength; at += BLOCK) {
      signal?.throwIfAborted();
      const bytes = new Uint8Array(Math.min(BLOCK, byteLength - at));
      await readAll(archive, byteOffset + at, bytes);
      yield bytes;
      bytesDone += bytes.byteLength;
      onProgress?.({ bytesDone, bytesTotal: archive.byteLength });
    }
  }
  const waiting = members.entries();
  const work = async () => {
    for (const [i, member] of waiting) {
      const deflater = createDeflateRaw({ chunkSize: BLOCK });
      // Errors reach the reader of `deflater`, which destroys the others when it stops.
      pipeline(Readable.from(read(member), { objectMode: false }), deflater, () => {});
      for await (const bytes of deflater as AsyncIterable<Uint8Array>) {
        await packed.write(places[i]! + lengths[i]!, bytes);
        lengths[i]! += bytes.byteLength;
      }
    }
  };
  try {
    const done = await Promise.allSettled(Array.from({ length: PARALLEL }, work));
    for (const outcome of done) if (outcome.status === 'rejected') throw outcome.reason;
  } catch (error) {
    await packed.close();
    throw error;
  }
  const encoding = encodeZip(
    members.map(({ name, byteLength, crc32 }, i) => ({
      name,
      bytes: new Uint8Array(),
      payload: lengths[i]!,
      deflated: { byteLength, crc32 },
    })),
  );
  return { encoding, packed, places };
}

/** Writes a deflated archive front to back. */
export async function writeDeflated(
  { encoding: { literals, payloads }, packed, places }: Deflated,
  sink: ByteSink,
  { signal }: Pick<RunOptions, 'signal'>,
): Promise<void> {
  const buffer = new Uint8Array(BLOCK);
  for (const [i, literal] of literals.entries()) {
    await sink.write(literal.offset, literal.bytes);
    const payload = payloads[i]; // none behind the last literal
    for (let at = 0; payload !== undefined && at < payload.byteLength; at += BLOCK) {
      signal?.throwIfAborted();
      const bytes = buffer.subarray(0, Math.min(BLOCK, payload.byteLength - at));
      await readAll(packed, places[i]! + at, bytes);
      await sink.write(payload.offset + at, bytes);
    }
  }
}
