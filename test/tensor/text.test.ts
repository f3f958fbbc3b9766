import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { compareUtf8 } from '../../src/tensor/text.ts';

const test = suite('tensor/text');

test('strings are ordered as their UTF-8 bytes are', () => {
  const texts = [
    '',
    'a',
    'a\0',
    'aa',
    'b',
    'B',
    'é',
    '\ud7ff',
    '\ue000',
    '\uffee',
    '\u{10000}',
    '\u{1f600}',
    'é😀',
  ];
  for (const a of texts) {
    for (const b of texts) {
      assert.is(Math.sign(compareUtf8(a, b)), Buffer.compare(Buffer.from(a), Buffer.from(b)), `${a}, ${b}`);
    }
  }
});

test.run();
