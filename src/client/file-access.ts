import type { UnpackOptions } from '../formats/weights.ts';
import type { ByteSink, ByteSource } from '../tensor/bytes.ts';
import type { Layout } from '../tensor/layout.ts';

/** A file that is being written and can be read back before it becomes visible. */
export interface CheckedSink extends ByteSink {
  readInto(offset: number, target: Uint8Array): number | Promise<number>;
}

/** A sink of an interrupted download that can be gone on with. */
export interface PartialSink extends CheckedSink {
  /** Bytes that are there from an earlier attempt, counted from the beginning. */
  readonly bytesThere: number;
  /** Closes it and leaves its first `byteLength` bytes for the next sink with the same key. Harmless after the end. */
  keep(byteLength: number): void | Promise<void>;
}

/** SHA-256 over bytes that come in pieces. */
export interface Sha256 {
  update(bytes: Uint8Array): void;
  /** Over the same bytes so far; each goes on by itself. */
  copy(): Sha256;
  /** Lower-case hexadecimal. */
  digest(): string;
  /** The same as 32 bytes. */
  digestBytes(): Uint8Array;
}

/** What a client needs of its host to work with paths, in constant memory. Browsers have none of it. */
export interface FileAccess {
  /** Throws FileError. */
  openSource(path: string): Promise<ByteSource>;
  /** Becomes the file at `path` on commit, and then survives a power cut. Throws FileError. */
  openSink(path: string): Promise<CheckedSink>;
  /** The same, going on with what was left under this key (lower-case hexadecimal) at this path. Throws FileError. */
  openPartialSink(path: string, key: string): Promise<PartialSink>;
  /** Checks an exact partial sum, which a server below another one sends in the place of an update. Throws FormatError. */
  readSum?(source: ByteSource): Promise<Layout>;
  sha256(): Sha256;
  /** Room for what a compressed update is unpacked to when it is looked into. Default: memory. */
  readonly unpacking?: UnpackOptions | undefined;
}
