import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { compareUtf8, printable } from '../../src/tensor/text.ts';

const test = suite('tensor/text');

test('texts are ordered by their bytes in UTF-8', () => {
  const texts = ['\u{1f600}', '\uffff', 'é', 'b', 'a', '', 'ab', '\ud7ff', '\u{10000}'];
  const byBytes = [...texts].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  assert.equal([...texts].sort(compareUtf8), byBytes);
});

test('what steers a terminal or hides is escaped, everything else stays', () => {
  const cases: [string, string][] = [
    ['größe 層 😀 "x"', 'größe 層 😀 "x"'],
    ['a\u001b[2Jb', 'a\\u001b[2Jb'],
    ['\u007f\u009b', '\\u007f\\u009b'],
    ['\u202egnp.exe', '\\u202egnp.exe'],
    ['\u2028\u2029\ufeff\u200b', '\\u2028\\u2029\\ufeff\\u200b'],
    ['\ud800', '\\ud800'],
    ['\u{e0001}', '\\u{e0001}'],
  ];
  for (const [text, expected] of cases) assert.is(printable(text), expected);
});

test.run();
