/**
 * Tokens of JSON (RFC 8259), for a reader that knows what it expects.
 *
 * JSON.parse is no help with a header that may be hostile: of two equal keys it keeps the last without a word, it rounds
 * whole numbers above 2^53, takes 2e0 for 2, and says of no value where it stood. Here the caller asks for what the
 * grammar of its format has next, so nothing is nested deeper than that grammar, and nothing recurses.
 */

/** Throws the caller's error for what stands at a byte of the text. */
export type Refuse = (at: number, sentence: string) => never;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const ZERO = 0x30;
const NINE = 0x39;

/** What follows a backslash, and the byte it stands for. */
const ESCAPES: ReadonlyMap<number, number> = new Map(
  Object.entries({ '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }).map(
    ([letter, character]) => [letter.charCodeAt(0), character.charCodeAt(0)],
  ),
);

export class JsonReader {
  /** Position of the next byte. */
  at = 0;
  readonly #bytes: Uint8Array;
  readonly #refuse: Refuse;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

  /** @param bytes the text; it is changed where it has escapes */
  constructor(bytes: Uint8Array, refuse: Refuse) {
    this.#bytes = bytes;
    this.#refuse = refuse;
  }

  /** Skips blanks and tells whether nothing follows them. */
  atEnd(): boolean {
    this.#skipBlanks();
    return this.at === this.#bytes.byteLength;
  }

  /** Takes the character if it is the next token. */
  accepts(character: string): boolean {
    this.#skipBlanks();
    if (this.#bytes[this.at] !== character.charCodeAt(0)) return false;
    this.at++;
    return true;
  }

  /** Takes a character that must be the next token. */
  expect(character: string): void {
    if (!this.accepts(character)) this.#refuse(this.at, `"${character}" is expected`);
  }

  /**
   * The keys of an object, duplicates included; the caller reads the value of each before it asks for the next.
   *
   * @returns key and its position
   */
  *members(): Generator<{ readonly key: string; readonly at: number }> {
    this.expect('{');
    if (this.accepts('}')) return;
    do {
      this.#skipBlanks();
      const at = this.at;
      const key = this.readText();
      this.expect(':');
      yield { key, at };
    } while (this.accepts(','));
    this.expect('}');
  }

  /** Reads an array of whole numbers, as `readWhole`. */
  readWholes(): number[] {
    const numbers: number[] = [];
    this.expect('[');
    if (this.accepts(']')) return numbers;
    do numbers.push(this.readWhole());
    while (this.accepts(','));
    this.expect(']');
    return numbers;
  }

  /** Reads a whole number without sign, fraction or exponent; Infinity when it is beyond 2^53 - 1. */
  readWhole(): number {
    this.#skipBlanks();
    const start = this.at;
    let value = 0;
    for (; ; this.at++) {
      const digit = (this.#bytes[this.at] ?? 0) - ZERO;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
    }
    const next = this.#bytes[this.at];
    const hasLeadingZero = this.at > start + 1 && this.#bytes[start] === ZERO;
    if (this.at === start || hasLeadingZero || next === 0x2e || next === 0x65 || next === 0x45) {
      this.#refuse(start, 'a whole number from 0 on, in digits only, is expected');
    }
    return value <= Number.MAX_SAFE_INTEGER ? value : Infinity;
  }

  /** Reads a text. */
  readText(): string {
    const bytes = this.#bytes;
    this.expect('"');
    const start = this.at;
    // Escapes are longer than what they stand for: the text is unescaped in its own room.
    let end = start;
    for (; ; end++) {
      const byte = bytes[this.at];
      if (byte === undefined) return this.#refuse(this.at, 'a text does not end');
      if (byte === QUOTE) break;
      if (byte < 0x20) this.#refuse(this.at, 'a text has a control character');
      if (byte === BACKSLASH) end = this.#unescape(end) - 1;
      else {
        bytes[end] = byte;
        this.at++;
      }
    }
    this.at++;
    try {
      return this.#decoder.decode(bytes.subarray(start, end));
    } catch {
      return this.#refuse(start, 'a text is not UTF-8');
    }
  }

  /** Writes what an escape stands for, and returns the position behind it. */
  #unescape(to: number): number {
    const start = this.at;
    const letter = this.#bytes[start + 1] ?? 0;
    const simple = ESCAPES.get(letter);
    if (simple !== undefined) {
      this.at += 2;
      this.#bytes[to] = simple;
      return to + 1;
    }
    let code = this.#readUnit();
    if (code >= 0xd800 && code < 0xdc00) {
      const low = this.#readUnit();
      if (low < 0xdc00 || low > 0xdfff) this.#refuse(start, 'half of a surrogate pair stands alone');
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code < 0xe000) {
      this.#refuse(start, 'half of a surrogate pair stands alone');
    }
    return to + encodeInto(code, this.#bytes, to);
  }

  /** The UTF-16 unit of an escape of the form \uXXXX. */
  #readUnit(): number {
    const start = this.at;
    const isUnit = this.#bytes[start] === BACKSLASH && this.#bytes[start + 1] === 0x75;
    let unit = 0;
    for (let i = 2; i < 6; i++) {
      const digit = hexDigit(this.#bytes[start + i] ?? 0);
      if (!isUnit || digit < 0) {
        return this.#refuse(start, 'an escape that JSON does not have, or half of a surrogate pair');
      }
      unit = unit * 16 + digit;
    }
    this.at += 6;
    return unit;
  }

  #skipBlanks(): void {
    for (;;) {
      const byte = this.#bytes[this.at];
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return;
      this.at++;
    }
  }
}

/** Value of a hexadecimal digit, -1 for any other byte. */
function hexDigit(byte: number): number {
  if (byte >= ZERO && byte <= NINE) return byte - ZERO;
  const letter = (byte | 0x20) - 0x61;
  return letter >= 0 && letter < 6 ? letter + 10 : -1;
}

/** Writes a code point in UTF-8 and returns its length. */
function encodeInto(code: number, bytes: Uint8Array, at: number): number {
  const length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  let rest = code;
  for (let i = length - 1; i > 0; i--) {
    bytes[at + i] = 0x80 | (rest & 0x3f);
    rest >>= 6;
  }
  bytes[at] = length === 1 ? rest : rest | ((0xf00 >> length) & 0xff);
  return length;
}
