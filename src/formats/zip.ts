/**
 * The directory of a zip archive.
 *
 *     for each member     local header    "PK\3\4", flags, method, CRC-32, sizes, name, extra fields
 *                         data            stored, or a raw deflate stream
 *                         descriptor      only with flag bit 3: ["PK\7\8"], CRC-32, sizes of 32 or 64 bits
 *     directory           an entry for each member: "PK\1\2", the same again, and where its local header stands
 *     zip64               record "PK\6\6" and locator "PK\6\7"; where a number is too large, and always from torch
 *     end record          "PK\5\6", number of entries, place of the directory, comment: ends the file
 *
 * The directory counts, the local headers must agree with it: archives that say two things are read differently by
 * different readers, which is how things are smuggled past a check. So nothing stands before, between or behind these
 * parts, members do not overlap, and names are unique, relative and without detours. A 64-bit value of an extra field
 * is used only where the 32-bit field is ffffffff. Writers to a pipe leave sizes 0 (or ffffffff) in local headers and
 * tell them in a descriptor; NumPy under older Pythons has the real sizes and a zip64 field beside them.
 *
 * Nothing is allocated by what a member declares: a deflate stream makes at most 1032 bytes of one (258 from two bits),
 * so a larger promise is refused here.
 */
import type { ByteSource } from '../tensor/bytes.ts';
import { formatError } from './refusals.ts';

/** One member of an archive whose directory and local header agree. */
export interface ZipMember {
  readonly name: string;
  readonly method: 'stored' | 'deflated';
  /** CRC-32 of the member's bytes, as the directory says. */
  readonly crc32: number;
  /** Absolute position of the first byte of its data. */
  readonly byteOffset: number;
  /** Bytes of its data in the archive; the same as `byteLength` when stored. */
  readonly packedLength: number;
  /** Bytes of the member. */
  readonly byteLength: number;
}

const LOCAL_SIGNATURE = 0x04034b50;
const ENTRY_SIGNATURE = 0x02014b50;
const DESCRIPTOR_SIGNATURE = 0x08074b50;
const END_SIGNATURE = 0x06054b50;
const END64_SIGNATURE = 0x06064b50;
const LOCATOR_SIGNATURE = 0x07064b50;

const LOCAL_BYTES = 30;
const ENTRY_BYTES = 46;
const END_BYTES = 22;
const END64_BYTES = 56;
const LOCATOR_BYTES = 20;

const ONES_16 = 0xffff;
const ONES_32 = 0xffffffff;

const FLAG_DESCRIPTOR = 1 << 3;
const FLAG_UTF8 = 1 << 11;
/** Encryption of the data, strong encryption, hidden local headers. */
const FLAGS_ENCRYPTED = 1 | (1 << 6) | (1 << 13);
/** How hard deflate tried, descriptor, UTF-8. */
const FLAGS_KNOWN = 0b110 | FLAG_DESCRIPTOR | FLAG_UTF8;

/** Each member costs memory and a read. A weight file has at most 65,536 tensors, and little besides. */
const MAX_MEMBERS = 1 << 17;

/** The directory is held in memory: room for the longest directories with names of 400 bytes. */
const MAX_DIRECTORY = 64 << 20;

const MAX_EXPANSION = 1032;

/** The extra fields that NumPy and torch write fit here, so that most local headers take one read. */
const USUAL_EXTRA = 20;

interface Entry {
  readonly name: string;
  readonly nameBytes: Uint8Array;
  readonly flags: number;
  readonly method: number;
  readonly crc32: number;
  readonly packedLength: number;
  readonly byteLength: number;
  /** Where its local header stands. */
  readonly headerOffset: number;
  /** Where its entry in the directory stands. */
  readonly offset: number;
}

interface Directory {
  readonly offset: number;
  readonly byteLength: number;
  readonly count: number;
}

/**
 * Reads the directory of an archive and checks it against the local headers. Reads some hundred bytes for each member,
 * none of its data; whether the data has the CRC-32 that it should is for those to find out who read it.
 *
 * @returns the members in the order of the directory
 * @throws FormatError `zip-not-zip`, `zip-truncated`, `zip-mismatch`, `zip-method`, `zip-encrypted`, `zip-name`,
 *   `zip-duplicate`, `zip-overlap`, `zip-size`, `zip-limit`
 */
export async function readZipDirectory(source: ByteSource): Promise<readonly ZipMember[]> {
  const reader = new ZipReader(source);
  const directory = await reader.findDirectory();
  const entries = await reader.readEntries(directory);
  return reader.readMembers(entries, directory);
}

/** True when a source ends like a zip archive without a comment, whatever it begins with. */
export async function endsLikeZip(source: ByteSource): Promise<boolean> {
  if (source.byteLength < END_BYTES) return false;
  const end = new Uint8Array(END_BYTES);
  await source.readInto(source.byteLength - END_BYTES, end);
  return viewOf(end).getUint32(0, true) === END_SIGNATURE;
}

/** Whether a name means the same place for everybody who unpacks an archive: below the folder that was asked for. */
export function isPlainName(name: string): boolean {
  return (
    name !== '' &&
    !/[\0\\]/.test(name) &&
    !name.startsWith('/') &&
    !/^[a-z]:/i.test(name) &&
    !name.split('/').includes('..')
  );
}

class ZipReader {
  readonly #source: ByteSource;

  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** Finds the end record, and with zip64 the larger one before it. */
  async findDirectory(): Promise<Directory> {
    const end = await this.#findEnd();
    const record = viewOf(await this.#read(end, END_BYTES));
    let directory: Directory = {
      count: record.getUint16(10, true),
      byteLength: record.getUint32(12, true),
      offset: record.getUint32(16, true),
    };
    if (record.getUint16(4, true) !== 0 || record.getUint16(6, true) !== 0) {
      throw this.#error('zip-mismatch', 'an archive in several parts', end + 4);
    }
    if (record.getUint16(8, true) !== directory.count) {
      throw this.#error('zip-mismatch', 'its end record gives two numbers of entries', end + 8);
    }
    let directoryEnd = end;
    if (end >= LOCATOR_BYTES + END64_BYTES) {
      const locator = viewOf(await this.#read(end - LOCATOR_BYTES, LOCATOR_BYTES));
      if (locator.getUint32(0, true) === LOCATOR_SIGNATURE) {
        directoryEnd = this.#readUint64(locator, 8, end - LOCATOR_BYTES);
        directory = await this.#readEnd64(directoryEnd, end - LOCATOR_BYTES, directory);
      }
    }
    const { offset, byteLength, count } = directory;
    if (offset + byteLength !== directoryEnd) {
      throw this.#error(
        'zip-mismatch',
        `a directory of ${byteLength} bytes at ${offset} does not end at ${directoryEnd}, where its end record stands`,
        end + 12,
      );
    }
    if (count > MAX_MEMBERS) {
      throw this.#error('zip-limit', `${count} members; at most ${MAX_MEMBERS} are read`, end + 10);
    }
    if (count * ENTRY_BYTES > byteLength) {
      throw this.#error(
        'zip-mismatch',
        `its end record says ${count} entries, more than ${byteLength} bytes can hold`,
        end + 10,
      );
    }
    if (byteLength > MAX_DIRECTORY) {
      throw this.#error(
        'zip-limit',
        `a directory of ${byteLength} bytes; at most ${MAX_DIRECTORY} are read`,
        end + 12,
      );
    }
    return directory;
  }

  /** The end record stands at the very end; only a comment moves it away from there. */
  async #findEnd(): Promise<number> {
    const { byteLength } = this.#source;
    const head = viewOf(await this.#read(0, Math.min(4, byteLength)));
    const first = head.byteLength < 4 ? 0 : head.getUint32(0, true);
    if (first !== LOCAL_SIGNATURE && first !== END_SIGNATURE) {
      throw this.#error('zip-not-zip', 'something else stands before the first member of the archive', 0);
    }
    if (byteLength >= END_BYTES) {
      const last = viewOf(await this.#read(byteLength - END_BYTES, END_BYTES));
      if (last.getUint32(0, true) === END_SIGNATURE && last.getUint16(20, true) === 0) {
        return byteLength - END_BYTES;
      }
    }
    const begin = Math.max(0, byteLength - END_BYTES - ONES_16);
    const tail = viewOf(await this.#read(begin, byteLength - begin));
    const found: number[] = [];
    for (let at = tail.byteLength - END_BYTES; at >= 0; at--) {
      if (tail.getUint32(at, true) !== END_SIGNATURE) continue;
      if (at + END_BYTES + tail.getUint16(at + 20, true) === tail.byteLength) found.push(begin + at);
    }
    const [end] = found;
    if (end === undefined) {
      throw this.#error('zip-truncated', 'the archive has no end record: it was cut', byteLength);
    }
    if (found.length > 1) {
      throw this.#error('zip-mismatch', 'two end records: readers would disagree about its members', end);
    }
    return end;
  }

  async #readEnd64(offset: number, locator: number, small: Directory): Promise<Directory> {
    if (offset > locator - END64_BYTES) {
      throw this.#error('zip-mismatch', 'the zip64 end record is not before its locator', locator + 8);
    }
    const record = viewOf(await this.#read(offset, END64_BYTES));
    if (record.getUint32(0, true) !== END64_SIGNATURE) {
      throw this.#error('zip-mismatch', 'no zip64 end record stands where its locator says', offset);
    }
    if (this.#readUint64(record, 4, offset) !== locator - offset - 12) {
      throw this.#error('zip-mismatch', 'the zip64 end record does not end at its locator', offset + 4);
    }
    const large: Directory = {
      count: this.#readUint64(record, 32, offset),
      byteLength: this.#readUint64(record, 40, offset),
      offset: this.#readUint64(record, 48, offset),
    };
    const isSame =
      (small.count === ONES_16 || small.count === large.count) &&
      (small.byteLength === ONES_32 || small.byteLength === large.byteLength) &&
      (small.offset === ONES_32 || small.offset === large.offset) &&
      this.#readUint64(record, 24, offset) === large.count;
    if (!isSame) throw this.#error('zip-mismatch', 'the two end records do not agree', offset + 24);
    return large;
  }

  async readEntries(directory: Directory): Promise<Entry[]> {
    const bytes = await this.#read(directory.offset, directory.byteLength);
    const view = viewOf(bytes);
    const entries: Entry[] = [];
    const names = new Set<string>();
    let at = 0;
    for (let i = 0; i < directory.count; i++) {
      const offset = directory.offset + at;
      if (at + ENTRY_BYTES > bytes.byteLength || view.getUint32(at, true) !== ENTRY_SIGNATURE) {
        throw this.#error(
          'zip-mismatch',
          `its directory ends before entry ${i} of ${directory.count}`,
          offset,
        );
      }
      const nameEnd = at + ENTRY_BYTES + view.getUint16(at + 28, true);
      const extraEnd = nameEnd + view.getUint16(at + 30, true);
      const entryEnd = extraEnd + view.getUint16(at + 32, true);
      if (entryEnd > bytes.byteLength) {
        throw this.#error('zip-mismatch', `entry ${i} reaches beyond the directory`, offset + 28);
      }
      const flags = view.getUint16(at + 8, true);
      const method = view.getUint16(at + 10, true);
      this.#checkFlags(flags, method, offset);
      const nameBytes = bytes.subarray(at + ENTRY_BYTES, nameEnd);
      const name = this.#readName(nameBytes, flags, offset + ENTRY_BYTES);
      if (names.has(name)) {
        throw this.#error(
          'zip-duplicate',
          `two members are called ${JSON.stringify(name)}`,
          offset + ENTRY_BYTES,
        );
      }
      names.add(name);
      const [byteLength, packedLength, headerOffset] = this.#widen(
        [view.getUint32(at + 24, true), view.getUint32(at + 20, true), view.getUint32(at + 42, true)],
        bytes.subarray(nameEnd, extraEnd),
        directory.offset + nameEnd,
      ) as [number, number, number]; // as many as were given
      if (view.getUint16(at + 34, true) !== 0) {
        throw this.#error('zip-mismatch', 'an archive in several parts', offset + 34);
      }
      const crc32 = view.getUint32(at + 16, true);
      entries.push({ name, nameBytes, flags, method, crc32, packedLength, byteLength, headerOffset, offset });
      at = entryEnd;
    }
    if (at !== bytes.byteLength) {
      throw this.#error(
        'zip-mismatch',
        'more follows in its directory than its end record says',
        directory.offset + at,
      );
    }
    return entries;
  }

  #checkFlags(flags: number, method: number, offset: number): void {
    if ((flags & FLAGS_ENCRYPTED) !== 0) {
      throw this.#error('zip-encrypted', 'a member is encrypted', offset + 8);
    }
    if (method !== 0 && method !== 8) {
      throw this.#error(
        'zip-method',
        `compression method ${method}; 0 (stored) and 8 (deflate) are read`,
        offset + 10,
      );
    }
    if ((flags & ~FLAGS_KNOWN) !== 0) {
      throw this.#error('zip-method', `the flags ${flags} have a meaning that is not read`, offset + 8);
    }
  }

  #readName(bytes: Uint8Array, flags: number, offset: number): string {
    let name: string;
    try {
      name = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      throw this.#error('zip-name', 'the name of a member is not UTF-8', offset);
    }
    if ((flags & FLAG_UTF8) === 0 && name.length !== bytes.byteLength) {
      throw this.#error('zip-name', 'the name of a member is not ASCII, and not marked as UTF-8', offset);
    }
    if (!isPlainName(name)) {
      throw this.#error(
        'zip-name',
        `the name ${JSON.stringify(name.slice(0, 100))} is not a plain relative one`,
        offset,
      );
    }
    return name;
  }

  /** Takes from a zip64 field what is ffffffff: the values stand there in this order, and only those. */
  #widen(values: readonly number[], extra: Uint8Array, offset: number): number[] {
    const field = this.#findZip64(extra, offset);
    let at = 0;
    return values.map((value) => {
      if (value !== ONES_32 || field === undefined) return value;
      if (at + 8 > field.byteLength) {
        throw this.#error('zip-mismatch', 'its zip64 field lacks a value', offset);
      }
      at += 8;
      return this.#readUint64(field, at - 8, offset);
    });
  }

  #findZip64(extra: Uint8Array, offset: number): DataView | undefined {
    const view = viewOf(extra);
    let found: DataView | undefined;
    for (let at = 0; at < extra.byteLength; ) {
      const length = at + 4 <= extra.byteLength ? view.getUint16(at + 2, true) : Infinity;
      if (at + 4 + length > extra.byteLength) {
        throw this.#error('zip-mismatch', 'an extra field reaches beyond its header', offset + at);
      }
      if (view.getUint16(at, true) === 1) {
        if (found !== undefined)
          throw this.#error('zip-mismatch', 'two zip64 fields in one header', offset + at);
        found = viewOf(extra.subarray(at + 4, at + 4 + length));
      }
      at += 4 + length;
    }
    return found;
  }

  /** Reads the local headers in the order of the file: together with the data they must fill it up to the directory. */
  async readMembers(entries: readonly Entry[], directory: Directory): Promise<ZipMember[]> {
    const order = entries
      .map((_, i) => i)
      .sort((a, b) => entries[a]!.headerOffset - entries[b]!.headerOffset);
    const members: ZipMember[] = new Array(entries.length);
    let end = 0;
    for (const [rank, i] of order.entries()) {
      const entry = entries[i]!;
      const { headerOffset, offset, packedLength, byteLength } = entry;
      if (headerOffset < end) {
        throw this.#error('zip-overlap', `${quoted(entry)} begins within another member`, offset + 42);
      }
      if (headerOffset > end) {
        throw this.#error(
          rank === 0 ? 'zip-not-zip' : 'zip-mismatch',
          `${headerOffset - end} bytes before ${quoted(entry)} belong to no member`,
          end,
        );
      }
      const fileLength = this.#source.byteLength;
      if (headerOffset + LOCAL_BYTES + entry.nameBytes.byteLength + packedLength > fileLength) {
        throw this.#error(
          'zip-truncated',
          `${quoted(entry)} has ${packedLength} bytes from ${headerOffset} on, the file has ${fileLength}`,
          offset + 20,
        );
      }
      const byteOffset = await this.#readLocal(entry, directory);
      if (entry.method === 0 && packedLength !== byteLength) {
        throw this.#error(
          'zip-size',
          `${quoted(entry)} is stored with ${packedLength} bytes and should have ${byteLength}`,
          offset + 24,
        );
      }
      if (byteLength > MAX_EXPANSION * packedLength) {
        throw this.#error(
          'zip-size',
          `${quoted(entry)} cannot have ${byteLength} bytes: its ${packedLength} inflate to fewer`,
          offset + 24,
        );
      }
      end = byteOffset + packedLength;
      const next = order[rank + 1];
      const border = next === undefined ? directory.offset : entries[next]!.headerOffset;
      if (end > border) {
        throw this.#error('zip-overlap', `${quoted(entry)} reaches into what follows it`, offset + 20);
      }
      if ((entry.flags & FLAG_DESCRIPTOR) !== 0) {
        await this.#checkDescriptor(entry, end, border);
        end = border;
      }
      members[i] = {
        name: entry.name,
        method: entry.method === 0 ? 'stored' : 'deflated',
        crc32: entry.crc32,
        byteOffset,
        packedLength,
        byteLength,
      };
    }
    if (end !== directory.offset) {
      throw this.#error(
        'zip-mismatch',
        `${directory.offset - end} bytes before the directory belong to no member`,
        end,
      );
    }
    return members;
  }

  /** Compares a local header with its entry; returns where the data begins. */
  async #readLocal(entry: Entry, directory: Directory): Promise<number> {
    const { headerOffset: offset, nameBytes } = entry;
    const nameEnd = LOCAL_BYTES + nameBytes.byteLength;
    const usual = Math.min(nameEnd + USUAL_EXTRA, directory.offset - offset);
    if (usual < nameEnd) {
      throw this.#error('zip-overlap', `${quoted(entry)} begins within the directory`, entry.offset + 42);
    }
    let bytes = await this.#read(offset, usual);
    let view = viewOf(bytes);
    if (view.getUint32(0, true) !== LOCAL_SIGNATURE) {
      throw this.#error('zip-mismatch', `no local header of ${quoted(entry)} stands where it should`, offset);
    }
    if (
      view.getUint16(26, true) !== nameBytes.byteLength ||
      bytes.subarray(LOCAL_BYTES, nameEnd).some((byte, i) => byte !== nameBytes[i])
    ) {
      throw this.#error(
        'zip-mismatch',
        `${quoted(entry)} has another name in its local header`,
        offset + LOCAL_BYTES,
      );
    }
    if (view.getUint16(6, true) !== entry.flags || view.getUint16(8, true) !== entry.method) {
      throw this.#error(
        'zip-mismatch',
        `${quoted(entry)} has another method or other flags in its local header`,
        offset + 6,
      );
    }
    const dataOffset = nameEnd + view.getUint16(28, true);
    if (dataOffset > directory.offset - offset) {
      throw this.#error(
        'zip-overlap',
        `the local header of ${quoted(entry)} reaches into the directory`,
        offset + 28,
      );
    }
    if (dataOffset > bytes.byteLength) {
      bytes = await this.#read(offset, dataOffset);
      view = viewOf(bytes);
    }
    const small = [view.getUint32(22, true), view.getUint32(18, true)];
    const sizes = this.#widen(small, bytes.subarray(nameEnd, dataOffset), offset + nameEnd);
    const expected = [entry.byteLength, entry.packedLength];
    // What a descriptor tells may be missing here, but must not be something else.
    const isLate = (entry.flags & FLAG_DESCRIPTOR) !== 0;
    for (const [i, size] of sizes.entries()) {
      if (size === expected[i] || (isLate && (size === 0 || size === ONES_32))) continue;
      throw this.#error(
        'zip-mismatch',
        `${quoted(entry)} has ${expected[i]} bytes by the directory and ${size} by its local header`,
        offset + 22 - 4 * i,
      );
    }
    const crc32 = view.getUint32(14, true);
    if (crc32 !== entry.crc32 && !(isLate && crc32 === 0)) {
      throw this.#error(
        'zip-mismatch',
        `${quoted(entry)} has another CRC-32 in its local header`,
        offset + 14,
      );
    }
    return offset + dataOffset;
  }

  async #checkDescriptor(entry: Entry, begin: number, end: number): Promise<void> {
    const length = end - begin;
    const wide = length === 20 || length === 24;
    if (!wide && length !== 12 && length !== 16) {
      throw this.#error(
        'zip-mismatch',
        `${length} bytes behind ${quoted(entry)} are no data descriptor`,
        begin,
      );
    }
    const view = viewOf(await this.#read(begin, length));
    const at = length % 8 === 0 ? 4 : 0;
    const size = (position: number) =>
      wide ? this.#readUint64(view, position, begin) : view.getUint32(position, true);
    const isSame =
      (at === 0 || view.getUint32(0, true) === DESCRIPTOR_SIGNATURE) &&
      view.getUint32(at, true) === entry.crc32 &&
      size(at + 4) === entry.packedLength &&
      size(at + (wide ? 12 : 8)) === entry.byteLength;
    if (!isSame) {
      throw this.#error(
        'zip-mismatch',
        `the data descriptor of ${quoted(entry)} is not that of its entry`,
        begin,
      );
    }
  }

  /** 64 bits, as a number that is exact. */
  #readUint64(view: DataView, at: number, offset: number): number {
    const value = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
    if (!Number.isSafeInteger(value)) {
      throw this.#error(
        'zip-truncated',
        `a size or position of ${value} lies beyond every file`,
        offset + at,
      );
    }
    return value;
  }

  async #read(offset: number, byteLength: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(byteLength);
    const read = await this.#source.readInto(offset, bytes);
    if (read < byteLength) {
      throw this.#error('zip-truncated', 'the file ends within the archive', offset + read);
    }
    return bytes;
  }

  #error(code: string, sentence: string, offset: number) {
    return formatError(code, sentence, { file: this.#source.name, offset });
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function quoted({ name }: Entry): string {
  return JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name);
}
