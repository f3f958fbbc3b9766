/**
 * TextEncoder and TextDecoder for hosts that have none: the edge door's bundle imports these instead (rollup.config.mjs).
 * Of the standard's encodings there are UTF-8, Latin-1 and UTF-16 in little endian, which is what this library names.
 */

/** Characters per call of String.fromCharCode: arguments go to the stack. */
const PIECE = 4_096;

const REPLACEMENT = 0xfffd;

class OwnTextEncoder {
  /** UTF-8; halves of surrogate pairs become U+FFFD. */
  encode(text: string): Uint8Array<ArrayBuffer> {
    const bytes: number[] = [];
    for (const character of text) {
      const code = character.codePointAt(0)!; // a character has one
      const point = code >= 0xd800 && code < 0xe000 ? REPLACEMENT : code;
      if (point < 0x80) {
        bytes.push(point);
        continue;
      }
      const more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
      bytes.push(((0xff00 >> (more + 1)) & 0xff) | (point >> (6 * more)));
      for (let i = more - 1; i >= 0; i--) bytes.push(0x80 | ((point >> (6 * i)) & 0x3f));
    }
    return Uint8Array.from(bytes);
  }
}

class OwnTextDecoder {
  readonly #label: string;
  readonly #fatal: boolean;
  readonly #ignoreBOM: boolean;

  constructor(label = 'utf-8', { fatal = false, ignoreBOM = false }: TextDecoderOptions = {}) {
    this.#label = label;
    this.#fatal = fatal;
    this.#ignoreBOM = ignoreBOM;
  }

  /** @throws TypeError for bytes that are no UTF-8, when `fatal` */
  decode(bytes: Uint8Array): string {
    if (this.#label === 'latin1') return textOf(bytes);
    if (this.#label === 'utf-16le') {
      return textOf(new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 1));
    }
    const units = unitsOfUtf8(bytes, this.#fatal);
    return textOf(!this.#ignoreBOM && units[0] === 0xfeff ? units.slice(1) : units);
  }
}

function textOf(units: ArrayLike<number>): string {
  let text = '';
  for (let i = 0; i < units.length; i += PIECE) {
    text += String.fromCharCode(...Array.prototype.slice.call(units, i, i + PIECE));
  }
  return text;
}

/** UTF-16 of UTF-8. What is none becomes U+FFFD, one for each longest begin of a sequence, as the standard has it. */
function unitsOfUtf8(bytes: Uint8Array, fatal: boolean): number[] {
  const units: number[] = [];
  for (let i = 0; i < bytes.length; ) {
    const first = bytes[i++]!;
    if (first < 0x80) {
      units.push(first);
      continue;
    }
    let more = first < 0xc2 || first > 0xf4 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    let point = more === 0 ? REPLACEMENT : first & (0x3f >> more);
    // The second byte of some sequences has narrower bounds: no overlong forms, no surrogates, nothing above 10ffff.
    let low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
    let high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
    let isGood = more > 0;
    for (; more > 0; more--) {
      const next = bytes[i] ?? 0;
      if (next < low || next > high) {
        isGood = false;
        point = REPLACEMENT;
        break;
      }
      point = (point << 6) | (next & 0x3f);
      low = 0x80;
      high = 0xbf;
      i++;
    }
    if (!isGood && fatal) throw new TypeError('the bytes are no UTF-8');
    if (point < 0x10000) units.push(point);
    else units.push(0xd7c0 + (point >> 10), 0xdc00 + (point & 0x3ff));
  }
  return units;
}

// The host's own where it has one; they are alike as far as this library goes.
const { TextEncoder: hostEncoder, TextDecoder: hostDecoder } = globalThis as {
  readonly TextEncoder?: typeof globalThis.TextEncoder;
  readonly TextDecoder?: typeof globalThis.TextDecoder;
};
const Encoder = hostEncoder ?? OwnTextEncoder;
const Decoder = hostDecoder ?? OwnTextDecoder;

export { Decoder as TextDecoder, Encoder as TextEncoder, OwnTextDecoder, OwnTextEncoder };
