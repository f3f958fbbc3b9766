import type { ByteSink, ByteSource } from '../tensor/bytes.ts';

/** A file that is being written and can be read back before it becomes visible. */
export interface CheckedSink extends ByteSink {
  readInto(offset: number, target: Uint8Array): number | Promise<number>;
}

/** SHA-256 over bytes that come in pieces. */
interface Sha256 {
  update(bytes: Uint8Array): void;
  /** Lower-case hexadecimal. */
  digest(): string;
}

/** What a client needs of its host to work with paths, in constant memory. Browsers have none of it. */
export interface FileAccess {
  /** Throws FileError. */
  openSource(path: string): Promise<ByteSource>;
  /** Becomes the file at `path` on commit, and then survives a power cut. Throws FileError. */
  openSink(path: string): Promise<CheckedSink>;
  sha256(): Sha256;
}
