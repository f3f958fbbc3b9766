/**
 * Elements that stand in a pickle as text: how protocol 2 of Python 3, which has no opcode for bytes, spells them.
 *
 *     byte 00 to 7f         the same byte
 *     byte 80 to ff         c2 or c3, then 80 to bf: the UTF-8 of the character with that number
 *
 * Nothing else occurs, so each text has one meaning. A byte may be cut in two by the end of a block.
 */
import type { ByteSource, Scratch } from '../tensor/bytes.ts';
import type { Layout } from '../tensor/layout.ts';
import { readExactly } from './exact.ts';
import { formatError } from './format-error.ts';
import { maxExpanded, unpackBehind } from './unpack.ts';
import type { UnpackOptions, Weights } from './weights.ts';

/** Where the text of a tensor stands in the file. */
export interface Text {
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** Bytes read at a time. */
const BLOCK = 256 << 10;

/**
 * Puts the elements of the tensors that are text (those without a place in `layout`) behind the file.
 *
 * @param texts one for each tensor; what the others have is not looked at
 * @throws FormatError `pickle-structure` at the byte that cannot be part of such a text, `pickle-mismatch` where a text
 * does not mean as many bytes as shape and dtype, `pickle-limit`
 */
export async function decodeTexts(
  source: ByteSource,
  layout: Layout,
  texts: readonly Text[],
  options: UnpackOptions,
): Promise<Weights> {
  const most = maxExpanded(source); // any number of arrays may name one text
  const limited = { ...options, maxByteLength: Math.min(options.maxByteLength ?? most, most) };
  const unpacked = await unpackBehind(source, layout, limited, {
    code: 'pickle-limit',
    fill: (tensor, scratch, place) =>
      decodeInto(scratch, place, layout.tensors[tensor]!.byteLength, source, texts[tensor]!, tensor, options),
  });
  return { ...unpacked, unpack: null };
}

async function decodeInto(
  scratch: Scratch,
  place: number,
  byteLength: number,
  source: ByteSource,
  text: Text,
  tensor: number,
  { signal }: UnpackOptions,
): Promise<void> {
  const refuse = (code: string, sentence: string, at: number) =>
    formatError(code, sentence, { file: source.name, tensor, offset: text.byteOffset + at });
  const block = new Uint8Array(Math.min(BLOCK, text.byteLength));
  let lead = 0; // what the second byte of a pair is to be added to, 0 between two
  let made = 0;
  for (let at = 0; at < text.byteLength; at += block.byteLength) {
    signal?.throwIfAborted();
    const bytes = block.subarray(0, text.byteLength - at);
    await readExactly(source, text.byteOffset + at, bytes, 'pickle-truncated', tensor);
    let n = 0; // never overtakes i: decoded in place
    for (let i = 0; i < bytes.byteLength; i++) {
      const byte = bytes[i]!;
      if (lead !== 0) {
        if ((byte & 0xc0) !== 0x80) throw refuse('pickle-structure', NO_BYTES, at + i);
        bytes[n++] = lead | (byte & 0x3f);
        lead = 0;
      } else if (byte < 0x80) {
        bytes[n++] = byte;
      } else if (byte === 0xc2 || byte === 0xc3) {
        lead = byte === 0xc2 ? 0x80 : 0xc0;
      } else {
        throw refuse('pickle-structure', NO_BYTES, at + i);
      }
    }
    if (made + n > byteLength) break;
    const writing = scratch.write(place + made, bytes.subarray(0, n));
    if (writing !== undefined) await writing;
    made += n;
    if (at + bytes.byteLength === text.byteLength) {
      if (lead !== 0) throw refuse('pickle-structure', NO_BYTES, text.byteLength);
      if (made === byteLength) return;
    }
  }
  throw refuse('pickle-mismatch', `its text does not mean the ${byteLength} bytes of shape and dtype`, 0);
}

const NO_BYTES = 'its elements are text that does not spell bytes: characters from 00 to ff, in UTF-8';
