import type { Encoding } from '../../src/formats/encoding.ts';
import type { ByteSource } from '../../src/tensor/bytes.ts';

/** Bytes from texts (latin-1, escapes as written), numbers (one byte) and bytes. */
export function bytesOf(...parts: readonly (string | number | Uint8Array)[]): Uint8Array {
  return new Uint8Array(
    Buffer.concat(
      parts.map((part) =>
        typeof part === 'string'
          ? Buffer.from(part, 'latin1')
          : typeof part === 'number'
            ? Buffer.from([part])
            : Buffer.from(part),
      ),
    ),
  );
}

/** Four bytes, little endian. */
export function u32(value: number): string {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes.toString('latin1');
}

/** Eight bytes, little endian. */
export function u64(value: number | bigint): string {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes.toString('latin1');
}

/** The .npy header of an object array of shape (2,). */
const OBJECT_HEADER = bytesOf(
  '\x93NUMPY\x01\x00\x76\x00',
  `{'descr': '|O', 'fortran_order': False, 'shape': (2,), }`.padEnd(117),
  '\n',
);

const RECONSTRUCT = 'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R';

/** A dtype, built. */
export function dtypeOpcodes(code: string, order = '<'): string {
  return `cnumpy\ndtype\nX${u32(code.length)}${code}\x89\x88\x87R(K\x03X\x01\0\0\0${order}NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK${code === 'O8' ? '?' : '\0'}tb`;
}

/** One array, with the opcodes of its shape and of its payload. */
export function arrayOpcodes(shape: string, payload: string, code = 'f4'): string {
  return `${RECONSTRUCT}(K\x01${shape}${dtypeOpcodes(code)}\x89${payload}tb`;
}

/** A payload as protocol 2 of Python 3 spells it: encode(text, 'latin1'), the text in UTF-8. */
export function textOpcodes(payload: Uint8Array): string {
  return encodedText(Buffer.from(Buffer.from(payload).toString('latin1'), 'utf8').toString('latin1'));
}

/** The same for the bytes of any text. */
export function encodedText(text: string): string {
  return `c_codecs\nencode\nX${u32(text.length)}${text}X\x06\0\0\0latin1\x86R`;
}

/** A whole weight file around the opcodes of its weighting and of its parameters. */
export function weightFile(parameters: string, weighting = 'K\x05', protocol = 3): Uint8Array {
  const outer = `${RECONSTRUCT}(K\x01K\x02\x85${dtypeOpcodes('O8', '|')}\x89](${weighting}${parameters}etb.`;
  return bytesOf(OBJECT_HEADER, 0x80, protocol, outer);
}

/** A source that counts what is read of it. */
export function counted(
  source: ByteSource,
): ByteSource & { readonly count: { bytes: number; calls: number } } {
  const count = { bytes: 0, calls: 0 };
  return {
    ...source,
    count,
    readInto(offset, target) {
      count.bytes += target.byteLength;
      count.calls++;
      return source.readInto(offset, target);
    },
  };
}

/** A file that has its literals; its elements are zeros that exist nowhere. */
export function sparseSource(encoding: Encoding): ByteSource {
  const { literals, byteLength } = encoding;
  return {
    name: 'sparse',
    byteLength,
    readInto(offset, target) {
      const length = Math.min(target.byteLength, byteLength - offset);
      target.fill(0, 0, length);
      for (const { offset: at, bytes } of literals) {
        const from = Math.max(at, offset);
        const to = Math.min(at + bytes.byteLength, offset + length);
        if (from < to) target.set(bytes.subarray(from - at, to - at), from - offset);
      }
      return length;
    },
    close() {},
  };
}
