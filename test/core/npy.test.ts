// The reader of .npy headers by every cut and every change of a byte, and the grammar by a table.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  DTYPE_BFLOAT16,
  DTYPE_BOOL,
  DTYPE_COMPLEX128,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  DTYPE_INT8,
  DTYPE_INT64,
  DTYPE_UINT8,
  DTYPE_UINT16,
  DTYPE_VOID16,
  NPY_DTYPE_UNSUPPORTED,
  NPY_HEADER_KEYS,
  NPY_HEADER_SYNTAX,
  NPY_HEADER_TOO_LARGE,
  NPY_HEADER_VALUE,
  NPY_MAGIC,
  NPY_SHAPE,
  NPY_SHAPE_OVERFLOW,
  NPY_TRUNCATED,
  NPY_VERSION,
} from '../../assembly/abi.ts';
import { openCore } from '../../src/core/core.ts';
import { readNpyHeader, writeNpyHeader } from '../../src/core/npy.ts';
import { fixtureBytes, fixtures } from '../helpers/fixtures.ts';
import { bytesOf, u32 } from '../helpers/pickles.ts';

const test = suite('core/npy');
const core = await openCore();

const STATUSES = new Set([
  NPY_MAGIC,
  NPY_VERSION,
  NPY_TRUNCATED,
  NPY_HEADER_TOO_LARGE,
  NPY_HEADER_SYNTAX,
  NPY_HEADER_KEYS,
  NPY_HEADER_VALUE,
  NPY_SHAPE,
  NPY_SHAPE_OVERFLOW,
  NPY_DTYPE_UNSUPPORTED,
]);

/** A file of a header text and nothing else. */
function headed(text: string, version = 1): Uint8Array {
  const length = version === 1 ? u32(text.length).slice(0, 2) : u32(text.length);
  return bytesOf('\x93NUMPY', version, 0, length, text);
}

/** The status, 0 for a header that is read. */
function statusOf(bytes: Uint8Array, fileLength = bytes.byteLength): number {
  const step = readNpyHeader(core, bytes, fileLength);
  if (step.kind !== 'refused') return 0;
  assert.ok(STATUSES.has(step.status), `status ${step.status}`);
  assert.ok(step.offset >= 0 && step.offset <= fileLength, `offset ${step.offset} of ${fileLength}`);
  return step.status;
}

const headers = fixtures()
  .filter(({ file, outcome, bytes }) => file.startsWith('npy/') && outcome === 'ok' && bytes < 400)
  .map(({ file }) => {
    const bytes = fixtureBytes(file);
    const step = readNpyHeader(core, bytes, bytes.byteLength);
    if (step.kind !== 'npy') throw new Error(file);
    return { file, bytes, end: step.record.byteOffset, record: step.record };
  });

test('a header that is cut wants exactly what it lacks, and is refused when the file ends there', () => {
  for (const { file, bytes, end, record } of headers) {
    for (let length = 0; length < end; length++) {
      const cut = bytes.subarray(0, length);
      assert.is(statusOf(cut), NPY_TRUNCATED, `${file}, ${length}`);
      const step = readNpyHeader(core, cut, bytes.byteLength);
      if (step.kind !== 'need') assert.unreachable(`${file}, ${length}: ${step.kind}`);
      else assert.ok(step.byteLength > length && step.byteLength <= end);
    }
    assert.equal(readNpyHeader(core, bytes.subarray(0, end), bytes.byteLength), { kind: 'npy', record });
  }
});

test('every change of one byte of a header is refused or read', () => {
  let read = 0;
  let refused = 0;
  for (const { bytes, end } of headers) {
    for (let at = 0; at < end; at++) {
      const byte = bytes[at]!;
      for (let value = 0; value < 256; value++) {
        bytes[at] = value;
        if (statusOf(bytes) === 0) read++;
        else refused++;
      }
      bytes[at] = byte;
    }
  }
  assert.ok(read > 0 && refused > read, `${read} read, ${refused} refused`);
});

test('the grammar', () => {
  const of = (descr: string, order = 'False', shape = '(2,)') =>
    `{'descr': ${descr}, 'fortran_order': ${order}, 'shape': ${shape}}`;
  const good = of("'<f4'");
  const cases: [text: string, status: number, version?: number][] = [
    [good, 0],
    [`${good}\n`, 0],
    [` \t\r\n${good}\t`, 0],
    [`{"shape":(2L,3L,),"fortran_order":True,u'descr':u"<f4",}`, 0],
    [of("'<f4'", 'False', '( )'), 0],
    [of("'<f4'", 'False', '( 2 , )'), 0],
    [of("'<f4'", 'False', `(${'1,'.repeat(64)})`), 0],
    [of("'<f4'", 'False', '(2L,)'), NPY_HEADER_SYNTAX, 3],
    [of("'<f4'", 'False', '(2l,)'), NPY_HEADER_SYNTAX],
    [of("'<f4'", 'False', '(02,)'), NPY_HEADER_SYNTAX],
    [of("'<f4'", 'False', '(00,)'), NPY_HEADER_SYNTAX],
    [of("'<f4'", 'False', '(0,)'), 0],
    [of("'<f4'", 'False', '(+2,)'), NPY_HEADER_SYNTAX],
    [of("'<f4'", 'False', '(2_0,)'), NPY_HEADER_SYNTAX],
    [of("'<f4'", 'False', '(,)'), NPY_HEADER_SYNTAX],
    [of("'<f4'", 'False', '(2,,)'), NPY_HEADER_SYNTAX],
    [of("'<f4'", 'False', '(2 3)'), NPY_HEADER_SYNTAX],
    [of("'<f4'", 'False', '(2'), NPY_HEADER_SYNTAX],
    [of("'<f4'", 'False', '(2)'), NPY_SHAPE],
    [of("'<f4'", 'False', '[2]'), NPY_SHAPE],
    [of("'<f4'", 'False', '2'), NPY_SHAPE],
    [of("'<f4'", 'False', '(-1,)'), NPY_SHAPE],
    [of("'<f4'", 'False', `(${'1,'.repeat(65)})`), NPY_SHAPE],
    [of("'<f4'", 'False', '(2251799813685247,)'), 0],
    [of("'<f4'", 'False', '(2251799813685248,)'), NPY_SHAPE_OVERFLOW],
    [of("'|u1'", 'False', '(9007199254740991,)'), 0],
    [of("'|u1'", 'False', '(9007199254740992,)'), NPY_SHAPE_OVERFLOW],
    [of("'<f4'", 'False', '(0, 9007199254740991)'), NPY_SHAPE_OVERFLOW],
    [of("'<f4'", '0'), NPY_HEADER_VALUE],
    [of("'<f4'", 'None'), NPY_HEADER_VALUE],
    [of("'<f4'", 'Trueish'), NPY_HEADER_SYNTAX],
    [of("b'<f4'"), NPY_HEADER_VALUE],
    [of("r'<f4'"), NPY_HEADER_VALUE],
    [of('4'), NPY_HEADER_VALUE],
    [of("'<f4' ''"), NPY_HEADER_SYNTAX],
    [of("'''<f4'''"), NPY_HEADER_SYNTAX],
    [of("'<\\x664'"), NPY_HEADER_VALUE],
    [of("''"), NPY_DTYPE_UNSUPPORTED],
    [of("[('a', '<f4'), ('b', '<i8', (2, 2))]"), NPY_DTYPE_UNSUPPORTED],
    [of("('<f4', (2,))"), NPY_DTYPE_UNSUPPORTED],
    [of("[('a', '<f4')"), NPY_HEADER_SYNTAX],
    [of("[('a', '<f4'])"), NPY_HEADER_SYNTAX],
    [of(`${'['.repeat(64)}${']'.repeat(64)}`), NPY_DTYPE_UNSUPPORTED],
    [of(`${'['.repeat(65)}${']'.repeat(65)}`), NPY_HEADER_SYNTAX],
    [`${good}#`, NPY_HEADER_SYNTAX],
    [`${good}\0`, NPY_HEADER_SYNTAX],
    [`${good}${good}`, NPY_HEADER_SYNTAX],
    [good.replace(',', ''), NPY_HEADER_SYNTAX],
    [good.replace(':', ''), NPY_HEADER_SYNTAX],
    [good.replace('{', '{,'), NPY_HEADER_SYNTAX],
    ['{}', NPY_HEADER_KEYS],
    ['', NPY_HEADER_SYNTAX],
    [good.replace('descr', 'Descr'), NPY_HEADER_KEYS],
    [good.replace('}', ", 'x': 1}"), NPY_HEADER_KEYS],
    [good.replace('}', ", 'shape': (2,)}"), NPY_HEADER_KEYS],
    [good.padEnd(10_000), 0, 2],
    [good.padEnd(10_001), NPY_HEADER_TOO_LARGE, 2],
    [of("[('\xe9', '<f4')]"), NPY_DTYPE_UNSUPPORTED, 1],
    [of("[('\xe9', '<f4')]"), NPY_HEADER_SYNTAX, 3],
    [of("[('\xc3\xa9\xe2\x82\xac\xf0\x9f\x8c\xb3', '<f4')]"), NPY_DTYPE_UNSUPPORTED, 3],
    [of("[('\xc0\x80', '<f4')]"), NPY_HEADER_SYNTAX, 3],
    [of("[('\xed\xa0\x80', '<f4')]"), NPY_HEADER_SYNTAX, 3],
    [of("[('\xf4\x90\x80\x80', '<f4')]"), NPY_HEADER_SYNTAX, 3],
  ];
  for (const [text, status, version = 1] of cases) {
    assert.is(statusOf(headed(text, version)), status, `${version}.0 ${text.slice(0, 120)}`);
  }
});

test('dtypes', () => {
  const cases: [descr: string, dtype: number, isBigEndian: boolean][] = [
    ['|b1', DTYPE_BOOL, false],
    ['?', DTYPE_BOOL, false],
    ['|i1', DTYPE_INT8, false],
    ['>u1', DTYPE_UINT8, true],
    ['<u2', DTYPE_UINT16, false],
    ['>i8', DTYPE_INT64, true],
    ['=f2', DTYPE_FLOAT16, false],
    ['f8', DTYPE_FLOAT64, false],
    ['>c16', DTYPE_COMPLEX128, true],
    ['|V2', DTYPE_VOID16, false],
    ['|O', 0, false],
    ['O8', 0, false],
  ];
  for (const [descr, dtype, isBigEndian] of cases) {
    const bytes = headed(`{'descr': '${descr}', 'fortran_order': True, 'shape': (3, 4)}`);
    const step = readNpyHeader(core, bytes, bytes.byteLength);
    if (step.kind !== 'npy') assert.unreachable(`${descr} is refused`);
    else
      assert.equal(
        [step.record.dtype, step.record.isBigEndian, step.record.isFortran],
        [dtype, isBigEndian, true],
      );
  }
  for (const descr of [
    '<f1',
    '<f3',
    '<f16',
    '<c4',
    '<c32',
    '<i3',
    '<i16',
    '<u32',
    '|S3',
    '<U3',
    '<M8[ns]',
    '|V1',
    '|V3',
    'float32',
    '<f04',
    '<f',
    '<',
    'O16',
    '<b2',
    '??',
  ]) {
    const status = statusOf(headed(`{'descr': '${descr}', 'fortran_order': False, 'shape': ()}`));
    assert.is(status, NPY_DTYPE_UNSUPPORTED, descr);
  }
});

test('what is written is read, and the data begins at a multiple of 64', () => {
  const shapes = [
    [],
    [0],
    [1],
    [2, 3],
    [123_456_789],
    [2 ** 49],
    Array.from({ length: 64 }, () => 1),
    [7, 0, 2 ** 40],
  ];
  for (const shape of shapes) {
    for (const dtype of [0, DTYPE_BOOL, DTYPE_FLOAT16, DTYPE_FLOAT32, DTYPE_BFLOAT16]) {
      const bytes = writeNpyHeader(core, dtype, shape);
      assert.is(bytes.byteLength % 64, 0);
      assert.is(bytes.at(-1), 0x0a);
      const step = readNpyHeader(core, bytes, bytes.byteLength);
      if (step.kind !== 'npy') assert.unreachable(`refused: (${shape})`);
      else {
        assert.equal(step.record.shape, shape);
        assert.is(step.record.dtype, dtype === DTYPE_BFLOAT16 ? DTYPE_VOID16 : dtype);
        assert.is(step.record.byteOffset, bytes.byteLength);
      }
    }
  }
  assert.throws(
    () =>
      writeNpyHeader(
        core,
        DTYPE_FLOAT32,
        Array.from({ length: 65 }, () => 1),
      ),
    /64/,
  );
});

test.run();
