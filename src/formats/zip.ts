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
import { LOCAL_SIGNATURE, ONES_32, viewOf, ZipBytes } from './zip-bytes.ts';
import { type Directory, ENTRY_BYTES, findDirectory } from './zip-end.ts';

export { endsLikeZip } from './zip-end.ts';

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

const ENTRY_SIGNATURE = 0x02014b50;
const DESCRIPTOR_SIGNATURE = 0x08074b50;

const LOCAL_BYTES = 30;

const FLAG_DESCRIPTOR = 1 << 3;
const FLAG_UTF8 = 1 << 11;
/** Encryption of the data, strong encryption, hidden local headers. */
const FLAGS_ENCRYPTED = 1 | (1 << 6) | (1 << 13);
/** How hard deflate tried, descriptor, UTF-8. */
const FLAGS_KNOWN = 0b110 | FLAG_DESCRIPTOR | FLAG_UTF8;

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

/**
 * Reads the directory of an archive and checks it against the local headers. Reads some hundred bytes for each member,
 * none of its data; whether the data has the CRC-32 that it should is for those to find out who read it.
 *
 * @returns the members in the order of the directory
 * @throws FormatError `zip-not-zip`, `zip-truncated`, `zip-mismatch`, `zip-method`, `zip-encrypted`, `zip-name`,
 *   `zip-duplicate`, `zip-overlap`, `zip-size`, `zip-limit`
 */
export async function readZipDirectory(source: ByteSource): Promise<readonly ZipMember[]> {
  const zip = new ZipBytes(source);
  const reader = new ZipReader(zip);
  const directory = await findDirectory(zip);
  const entries = await reader.readEntries(directory);
  return reader.readMembers(entries, directory);
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
  readonly #zip: ZipBytes;

  constructor(zip: ZipBytes) {
    this.#zip = zip;
  }

  async readEntries(directory: Directory): Promise<Entry[]> {
    const bytes = await this.#zip.read(directory.offset, directory.byteLength);
    const view = viewOf(bytes);
    const entries: Entry[] = [];
    const names = new Set<string>();
    let at = 0;
    for (let i = 0; i < directory.count; i++) {
      const offset = directory.offset + at;
      if (at + ENTRY_BYTES > bytes.byteLength || view.getUint32(at, true) !== ENTRY_SIGNATURE) {
        throw this.#zip.mismatch(`its directory ends before entry ${i} of ${directory.count}`, offset);
      }
      const nameEnd = at + ENTRY_BYTES + view.getUint16(at + 28, true);
      const extraEnd = nameEnd + view.getUint16(at + 30, true);
      const entryEnd = extraEnd + view.getUint16(at + 32, true);
      if (entryEnd > bytes.byteLength) {
        throw this.#zip.mismatch(`entry ${i} reaches beyond the directory`, offset + 28);
      }
      const flags = view.getUint16(at + 8, true);
      const method = view.getUint16(at + 10, true);
      this.#checkFlags(flags, method, offset);
      const nameBytes = bytes.subarray(at + ENTRY_BYTES, nameEnd);
      const name = this.#readName(nameBytes, flags, offset + ENTRY_BYTES);
      if (names.has(name)) {
        throw this.#zip.error(
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
        throw this.#zip.mismatch('an archive in several parts', offset + 34);
      }
      const crc32 = view.getUint32(at + 16, true);
      entries.push({ name, nameBytes, flags, method, crc32, packedLength, byteLength, headerOffset, offset });
      at = entryEnd;
    }
    if (at !== bytes.byteLength) {
      throw this.#zip.mismatch(
        'more follows in its directory than its end record says',
        directory.offset + at,
      );
    }
    return entries;
  }

  #checkFlags(flags: number, method: number, offset: number): void {
    if ((flags & FLAGS_ENCRYPTED) !== 0) {
      throw this.#zip.error('zip-encrypted', 'a member is encrypted', offset + 8);
    }
    if (method !== 0 && method !== 8) {
      throw this.#zip.error(
        'zip-method',
        `compression method ${method}; 0 (stored) and 8 (deflate) are read`,
        offset + 10,
      );
    }
    if ((flags & ~FLAGS_KNOWN) !== 0) {
      throw this.#zip.error('zip-method', `the flags ${flags} have a meaning that is not read`, offset + 8);
    }
  }

  #readName(bytes: Uint8Array, flags: number, offset: number): string {
    let name: string;
    try {
      name = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      throw this.#zip.error('zip-name', 'the name of a member is not UTF-8', offset);
    }
    if ((flags & FLAG_UTF8) === 0 && name.length !== bytes.byteLength) {
      throw this.#zip.error('zip-name', 'the name of a member is not ASCII, and not marked as UTF-8', offset);
    }
    if (!isPlainName(name)) {
      throw this.#zip.error(
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
        throw this.#zip.mismatch('its zip64 field lacks a value', offset);
      }
      at += 8;
      return this.#zip.uint64(field, at - 8, offset);
    });
  }

  #findZip64(extra: Uint8Array, offset: number): DataView | undefined {
    const view = viewOf(extra);
    let found: DataView | undefined;
    for (let at = 0; at < extra.byteLength; ) {
      const length = at + 4 <= extra.byteLength ? view.getUint16(at + 2, true) : Infinity;
      if (at + 4 + length > extra.byteLength) {
        throw this.#zip.mismatch('an extra field reaches beyond its header', offset + at);
      }
      if (view.getUint16(at, true) === 1) {
        if (found !== undefined) throw this.#zip.mismatch('two zip64 fields in one header', offset + at);
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
        throw this.#zip.error('zip-overlap', `${quoted(entry)} begins within another member`, offset + 42);
      }
      if (headerOffset > end) {
        throw this.#zip.error(
          rank === 0 ? 'zip-not-zip' : 'zip-mismatch',
          `${headerOffset - end} bytes before ${quoted(entry)} belong to no member`,
          end,
        );
      }
      const fileLength = this.#zip.source.byteLength;
      if (headerOffset + LOCAL_BYTES + entry.nameBytes.byteLength + packedLength > fileLength) {
        throw this.#zip.error(
          'zip-truncated',
          `${quoted(entry)} has ${packedLength} bytes from ${headerOffset} on, the file has ${fileLength}`,
          offset + 20,
        );
      }
      const byteOffset = await this.#readLocal(entry, directory);
      if (entry.method === 0 && packedLength !== byteLength) {
        throw this.#zip.error(
          'zip-size',
          `${quoted(entry)} is stored with ${packedLength} bytes and should have ${byteLength}`,
          offset + 24,
        );
      }
      if (byteLength > MAX_EXPANSION * packedLength) {
        throw this.#zip.error(
          'zip-size',
          `${quoted(entry)} cannot have ${byteLength} bytes: its ${packedLength} inflate to fewer`,
          offset + 24,
        );
      }
      end = byteOffset + packedLength;
      const next = order[rank + 1];
      const border = next === undefined ? directory.offset : entries[next]!.headerOffset;
      if (end > border) {
        throw this.#zip.error('zip-overlap', `${quoted(entry)} reaches into what follows it`, offset + 20);
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
      throw this.#zip.mismatch(
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
      throw this.#zip.error('zip-overlap', `${quoted(entry)} begins within the directory`, entry.offset + 42);
    }
    let bytes = await this.#zip.read(offset, usual);
    let view = viewOf(bytes);
    if (view.getUint32(0, true) !== LOCAL_SIGNATURE) {
      throw this.#zip.mismatch(`no local header of ${quoted(entry)} stands where it should`, offset);
    }
    if (
      view.getUint16(26, true) !== nameBytes.byteLength ||
      bytes.subarray(LOCAL_BYTES, nameEnd).some((byte, i) => byte !== nameBytes[i])
    ) {
      throw this.#zip.mismatch(`${quoted(entry)} has another name in its local header`, offset + LOCAL_BYTES);
    }
    if (view.getUint16(6, true) !== entry.flags || view.getUint16(8, true) !== entry.method) {
      throw this.#zip.mismatch(
        `${quoted(entry)} has another method or other flags in its local header`,
        offset + 6,
      );
    }
    const dataOffset = nameEnd + view.getUint16(28, true);
    if (dataOffset > directory.offset - offset) {
      throw this.#zip.error(
        'zip-overlap',
        `the local header of ${quoted(entry)} reaches into the directory`,
        offset + 28,
      );
    }
    if (dataOffset > bytes.byteLength) {
      bytes = await this.#zip.read(offset, dataOffset);
      view = viewOf(bytes);
    }
    const small = [view.getUint32(22, true), view.getUint32(18, true)];
    const sizes = this.#widen(small, bytes.subarray(nameEnd, dataOffset), offset + nameEnd);
    const expected = [entry.byteLength, entry.packedLength];
    // What a descriptor tells may be missing here, but must not be something else.
    const isLate = (entry.flags & FLAG_DESCRIPTOR) !== 0;
    for (const [i, size] of sizes.entries()) {
      if (size === expected[i] || (isLate && (size === 0 || size === ONES_32))) continue;
      throw this.#zip.mismatch(
        `${quoted(entry)} has ${expected[i]} bytes by the directory and ${size} by its local header`,
        offset + 22 - 4 * i,
      );
    }
    const crc32 = view.getUint32(14, true);
    if (crc32 !== entry.crc32 && !(isLate && crc32 === 0)) {
      throw this.#zip.mismatch(`${quoted(entry)} has another CRC-32 in its local header`, offset + 14);
    }
    return offset + dataOffset;
  }

  async #checkDescriptor(entry: Entry, begin: number, end: number): Promise<void> {
    const length = end - begin;
    const wide = length === 20 || length === 24;
    if (!wide && length !== 12 && length !== 16) {
      throw this.#zip.mismatch(`${length} bytes behind ${quoted(entry)} are no data descriptor`, begin);
    }
    const view = viewOf(await this.#zip.read(begin, length));
    const at = length % 8 === 0 ? 4 : 0;
    const size = (position: number) =>
      wide ? this.#zip.uint64(view, position, begin) : view.getUint32(position, true);
    const isSame =
      (at === 0 || view.getUint32(0, true) === DESCRIPTOR_SIGNATURE) &&
      view.getUint32(at, true) === entry.crc32 &&
      size(at + 4) === entry.packedLength &&
      size(at + (wide ? 12 : 8)) === entry.byteLength;
    if (!isSame) {
      throw this.#zip.mismatch(`the data descriptor of ${quoted(entry)} is not that of its entry`, begin);
    }
  }
}

function quoted({ name }: Entry): string {
  return JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name);
}
