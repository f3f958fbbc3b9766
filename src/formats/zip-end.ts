/**
 * The end of a zip archive: the end record, and with zip64 the larger one and its locator before it (zip.ts has the whole).
 */
import type { ByteSource } from '../tensor/bytes.ts';
import { LOCAL_SIGNATURE, ONES_16, ONES_32, viewOf, type ZipBytes } from './zip-bytes.ts';

/** Where the directory of an archive stands. */
export interface Directory {
  readonly offset: number;
  readonly byteLength: number;
  readonly count: number;
}

const END_SIGNATURE = 0x06054b50;
const END64_SIGNATURE = 0x06064b50;
const LOCATOR_SIGNATURE = 0x07064b50;

const END_BYTES = 22;
const END64_BYTES = 56;
const LOCATOR_BYTES = 20;
/** Bytes of an entry of the directory without its name and what else varies. */
export const ENTRY_BYTES = 46;

/** Each member costs memory and a read. A weight file has at most 65,536 tensors, and little besides. */
const MAX_MEMBERS = 1 << 17;

/** The directory is held in memory: room for the longest directories with names of 400 bytes. */
const MAX_DIRECTORY = 64 << 20;

/** True when a source ends like a zip archive without a comment, whatever it begins with. */
export async function endsLikeZip(source: ByteSource): Promise<boolean> {
  if (source.byteLength < END_BYTES) return false;
  const end = new Uint8Array(END_BYTES);
  await source.readInto(source.byteLength - END_BYTES, end);
  return viewOf(end).getUint32(0, true) === END_SIGNATURE;
}

/** Finds the end record, and with zip64 the larger one before it. */
export async function findDirectory(zip: ZipBytes): Promise<Directory> {
  const end = await findEnd(zip);
  const record = viewOf(await zip.read(end, END_BYTES));
  let directory: Directory = {
    count: record.getUint16(10, true),
    byteLength: record.getUint32(12, true),
    offset: record.getUint32(16, true),
  };
  if (record.getUint16(4, true) !== 0 || record.getUint16(6, true) !== 0) {
    throw zip.mismatch('an archive in several parts', end + 4);
  }
  if (record.getUint16(8, true) !== directory.count) {
    throw zip.mismatch('its end record gives two numbers of entries', end + 8);
  }
  let directoryEnd = end;
  if (end >= LOCATOR_BYTES + END64_BYTES) {
    const locator = viewOf(await zip.read(end - LOCATOR_BYTES, LOCATOR_BYTES));
    if (locator.getUint32(0, true) === LOCATOR_SIGNATURE) {
      directoryEnd = zip.uint64(locator, 8, end - LOCATOR_BYTES);
      directory = await readEnd64(zip, directoryEnd, end - LOCATOR_BYTES, directory);
    }
  }
  const { offset, byteLength, count } = directory;
  if (offset + byteLength !== directoryEnd) {
    throw zip.mismatch(
      `a directory of ${byteLength} bytes at ${offset} does not end at ${directoryEnd}, where its end record stands`,
      end + 12,
    );
  }
  if (count > MAX_MEMBERS) {
    throw zip.error('zip-limit', `${count} members; at most ${MAX_MEMBERS} are read`, end + 10);
  }
  if (count * ENTRY_BYTES > byteLength) {
    throw zip.mismatch(
      `its end record says ${count} entries, more than ${byteLength} bytes can hold`,
      end + 10,
    );
  }
  if (byteLength > MAX_DIRECTORY) {
    throw zip.error(
      'zip-limit',
      `a directory of ${byteLength} bytes; at most ${MAX_DIRECTORY} are read`,
      end + 12,
    );
  }
  return directory;
}

/** The end record stands at the very end; only a comment moves it away from there. */
async function findEnd(zip: ZipBytes): Promise<number> {
  const { byteLength } = zip.source;
  const head = viewOf(await zip.read(0, Math.min(4, byteLength)));
  const first = head.byteLength < 4 ? 0 : head.getUint32(0, true);
  if (first !== LOCAL_SIGNATURE && first !== END_SIGNATURE) {
    throw zip.error('zip-not-zip', 'something else stands before the first member of the archive', 0);
  }
  if (byteLength >= END_BYTES) {
    const last = viewOf(await zip.read(byteLength - END_BYTES, END_BYTES));
    if (last.getUint32(0, true) === END_SIGNATURE && last.getUint16(20, true) === 0) {
      return byteLength - END_BYTES;
    }
  }
  const begin = Math.max(0, byteLength - END_BYTES - ONES_16);
  const tail = viewOf(await zip.read(begin, byteLength - begin));
  const found: number[] = [];
  for (let at = tail.byteLength - END_BYTES; at >= 0; at--) {
    if (tail.getUint32(at, true) !== END_SIGNATURE) continue;
    if (at + END_BYTES + tail.getUint16(at + 20, true) === tail.byteLength) found.push(begin + at);
  }
  const [end] = found;
  if (end === undefined) {
    throw zip.error('zip-truncated', 'the archive has no end record: it was cut', byteLength);
  }
  if (found.length > 1) {
    throw zip.mismatch('two end records: readers would disagree about its members', end);
  }
  return end;
}

async function readEnd64(
  zip: ZipBytes,
  offset: number,
  locator: number,
  small: Directory,
): Promise<Directory> {
  if (offset > locator - END64_BYTES) {
    throw zip.mismatch('the zip64 end record is not before its locator', locator + 8);
  }
  const record = viewOf(await zip.read(offset, END64_BYTES));
  if (record.getUint32(0, true) !== END64_SIGNATURE) {
    throw zip.mismatch('no zip64 end record stands where its locator says', offset);
  }
  if (zip.uint64(record, 4, offset) !== locator - offset - 12) {
    throw zip.mismatch('the zip64 end record does not end at its locator', offset + 4);
  }
  const large: Directory = {
    count: zip.uint64(record, 32, offset),
    byteLength: zip.uint64(record, 40, offset),
    offset: zip.uint64(record, 48, offset),
  };
  const isSame =
    (small.count === ONES_16 || small.count === large.count) &&
    (small.byteLength === ONES_32 || small.byteLength === large.byteLength) &&
    (small.offset === ONES_32 || small.offset === large.offset) &&
    zip.uint64(record, 24, offset) === large.count;
  if (!isSame) throw zip.mismatch('the two end records do not agree', offset + 24);
  return large;
}
