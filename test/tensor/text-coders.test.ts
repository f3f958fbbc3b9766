// Our coders against the host's.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OwnTextDecoder, OwnTextEncoder } from '../../src/tensor/text-coders.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { Random, testSeed } from '../helpers/random.ts';

const test = suite('text-coders');
const random = new Random(testSeed());

/** Bytes that begin sequences, go on with them, and bound what may follow. */
const BYTES = [
  0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbb, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xef,
  0xf0, 0xf3, 0xf4, 0xf5, 0xff,
];

test('UTF-8 is read as the host reads it, wrong one too', () => {
  for (let round = 0; round < 30_000; round++) {
    const bytes = Uint8Array.from({ length: random.integer(0, 7) }, () => random.pick(BYTES));
    for (const ignoreBOM of [false, true]) {
      assert.is(
        new OwnTextDecoder('utf-8', { ignoreBOM }).decode(bytes),
        new TextDecoder('utf-8', { ignoreBOM }).decode(bytes),
        Buffer.from(bytes).toString('hex'),
      );
      const read = (Decoder: typeof OwnTextDecoder | typeof TextDecoder) => {
        try {
          return new Decoder('utf-8', { fatal: true, ignoreBOM }).decode(bytes);
        } catch (error) {
          return error instanceof TypeError;
        }
      };
      assert.is(read(OwnTextDecoder), read(TextDecoder), Buffer.from(bytes).toString('hex'));
    }
  }
});

test('UTF-8 is written as the host writes it', () => {
  for (let round = 0; round < 2_000; round++) {
    const units = Array.from({ length: random.integer(0, 6) }, () =>
      random.pick([0x41, 0x7f, 0x80, 0x7ff, 0x800, 0xd83d, 0xde00, 0xdfff, 0xfeff, 0xffff]),
    );
    const text = String.fromCharCode(...units);
    sameBytes(new OwnTextEncoder().encode(text), new TextEncoder().encode(text));
  }
});

test('long texts, Latin-1 and UTF-16', () => {
  const long = 'änderung 🙂 '.repeat(10_000);
  assert.is(new OwnTextDecoder().decode(new TextEncoder().encode(long)), long);
  assert.is(new OwnTextDecoder('latin1').decode(Uint8Array.of(0x41, 0xe4, 0xff)), 'Aäÿ');
  assert.is(new OwnTextDecoder('utf-16le').decode(Uint8Array.of(0x41, 0, 0xe4, 0)), 'Aä');
});

test.run();
