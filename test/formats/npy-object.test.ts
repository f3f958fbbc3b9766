// The forms of weight files that no fixture has.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openWeights } from '../../src/formats/open.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { arrayOpcodes, dtypeOpcodes, encodedText, u32, weightFile } from '../helpers/pickles.ts';

const test = suite('formats/npy-object');

const array = arrayOpcodes('K\x02\x85', 'C\x0812345678');
const text = (name: string) => `X${u32(name.length)}${name}`;
const layoutOf = async (parameters: string, weighting?: string, protocol?: number) =>
  (await openWeights(memorySource(weightFile(parameters, weighting, protocol)))).layout;

test('lists and tuples are flattened in order, pairs give names', async () => {
  const cases: [what: string, parameters: string, names: (string | null)[]][] = [
    ['a list', `](${array}${array}e`, [null, null]],
    ['a tuple', `(${array}${array}t`, [null, null]],
    ['nothing', ']', []],
    ['an empty tuple', ')', []],
    ['lists in lists', `](](${array}e](](${array}${array}e)ee`, [null, null, null]],
    ['pairs', `](](${text('a')}${array}e](${text('b')}${array}ee`, ['a', 'b']],
    ['pairs that are tuples', `](${text('a')}${array}\x86${text('b')}${array}\x86e`, ['a', 'b']],
    ['some pairs', `](${array}${text('b')}${array}\x86e`, [null, 'b']],
    ['a pair alone', `](${text('a')}${array}e`, ['a']],
    ['names of Python 2', `](U\x01a${array}\x86e`, ['a']],
    ['names in UTF-8', `](${text('\xc3\xbc\xe2\x82\xac')}${array}\x86e`, ['ü€']],
    ['an empty name', `](${text('')}${array}\x86e`, ['']],
    ['the same array twice', `](${array}q\x01h\x01e`, [null, null]],
  ];
  for (const [what, parameters, names] of cases) {
    const { tensors } = await layoutOf(parameters);
    assert.equal(
      tensors.map(({ name }) => name),
      names,
      what,
    );
    for (const { byteLength, shape } of tensors) assert.equal([byteLength, shape], [8, [2]]);
  }
});

test('names that cannot be told apart or read are refused', async () => {
  const twice = `](${text('a')}${array}\x86${text('a')}${array}\x86e`;
  const { tensor, message, offset } = (await failsWith('weights-form', () => layoutOf(twice))) as Error & {
    tensor?: number;
    offset?: number;
  };
  assert.is(tensor, 1);
  assert.is(offset, Buffer.from(weightFile(twice)).lastIndexOf('X\x01\0\0\0a') + 5);
  assert.match(message, /"a"/);
  await failsWith('pickle-structure', () => layoutOf(`](${text('\xff')}${array}\x86e`));
});

/** scalar(dtype, bytes) and an array of one element, as weightings. */
const scalar = (code: string, bytes: string, order: string) =>
  `cnumpy.core.multiarray\nscalar\n${dtypeOpcodes(code, order)}C${String.fromCharCode(bytes.length)}${bytes}\x86R`;

test('a weighting may be any number of NumPy', async () => {
  const cases: [code: string, littleEndian: string, value: number, kind: 'int' | 'float'][] = [
    ['i1', '\xfe', -2, 'int'],
    ['u1', '\xfe', 254, 'int'],
    ['i2', '\xfe\xff', -2, 'int'],
    ['u2', '\xfe\xff', 65_534, 'int'],
    ['i4', '\xfe\xff\xff\xff', -2, 'int'],
    ['u4', '\xfe\xff\xff\xff', 4_294_967_294, 'int'],
    ['i8', '\x01\0\0\0\0\0\xe0\xff', 1 - 2 ** 53, 'int'],
    ['u8', '\xff\xff\xff\xff\xff\xff\x1f\0', 2 ** 53 - 1, 'int'],
    ['f2', '\x01\x3c', 1 + 2 ** -10, 'float'],
    ['f2', '\x01\x80', -(2 ** -24), 'float'],
    ['f2', '\0\x7c', Number.POSITIVE_INFINITY, 'float'],
    ['f2', '\x01\xfe', Number.NaN, 'float'],
    ['f4', '\0\0\xc0\xbf', -1.5, 'float'],
    ['f8', '\0\0\0\0\0\0\xf8?', 1.5, 'float'],
  ];
  for (const [code, bytes, value, kind] of cases) {
    for (const order of ['<', '>', '=', '|']) {
      const stored = order === '>' ? [...bytes].reverse().join('') : bytes;
      const asArray = arrayOpcodes(')', `C${String.fromCharCode(stored.length)}${stored}`, code);
      for (const weighting of [scalar(code, stored, order), ...(order === '<' ? [asArray] : [])]) {
        const layout = await layoutOf(`](${array}e`, weighting);
        assert.ok(
          Object.is(layout.weighting, value),
          `${order}${code}: ${layout.weighting}, expected ${value}`,
        );
        assert.is(layout.weightingType, kind);
      }
    }
  }
});

test('a weighting may not be anything else', async () => {
  const cases: [what: string, weighting: string, code: string][] = [
    ['2^53', scalar('i8', '\0\0\0\0\0\0\x20\0', '<'), 'weights-form'],
    ['-2^53', scalar('i8', '\0\0\0\0\0\0\xe0\xff', '<'), 'weights-form'],
    ['2^64 - 1', scalar('u8', '\xff'.repeat(8), '<'), 'weights-form'],
    ['a bool of NumPy', scalar('b1', '\x01', '|'), 'weights-form'],
    ['a complex number', scalar('c8', '\0'.repeat(8), '<'), 'weights-form'],
    ['two elements', array, 'weights-form'],
    ['no element', arrayOpcodes('K\0\x85', 'C\0'), 'weights-form'],
    ['a list', ']', 'weights-form'],
    ['bytes', 'C\x015', 'weights-form'],
    ['a function', 'cnumpy\ndtype\n', 'weights-form'],
    ['a dtype', dtypeOpcodes('f4'), 'weights-form'],
    [
      'flags that make NumPy crash',
      scalar('f8', '\0'.repeat(8), '<').replace('K\0tb', 'K\x05tb'),
      'pickle-structure',
    ],
    ['too few bytes', scalar('f8', '\0\0\0\0', '<'), 'pickle-mismatch'],
    [
      'an array that was never filled',
      'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R',
      'pickle-structure',
    ],
  ];
  for (const [what, weighting, code] of cases) {
    const error = await failsWith(code, () => layoutOf(`](${array}e`, weighting)).catch((cause) => {
      throw new Error(what, { cause });
    });
    assert.match(error.message, /at byte \d+/, what);
  }
});

test('protocol 2 of Python 2, and of Python 3', async () => {
  const python2 = array
    .replace('C\x0812345678', 'U\x0812345678')
    .replace('C\x01b', 'U\x01b')
    .replace('\x89\x88\x87', 'K\0K\x01\x87');
  const { tensors } = await layoutOf(`](${python2}e`, undefined, 2);
  assert.equal(
    tensors.map(({ dtype, shape }) => [dtype, shape]),
    [['float32', [2]]],
  );
  const empty = array
    .replace('C\x0812345678', 'c__builtin__\nbytes\n)R')
    .replace('K\x02\x85', 'K\0\x85')
    .replace('C\x01b', encodedText('b'));
  assert.is((await layoutOf(`](${empty}e`, undefined, 2)).tensors[0]!.byteLength, 0);
  const python3 = array.replace('C\x0812345678', encodedText('12345678'));
  const { layout, unpack } = await openWeights(
    memorySource(weightFile(`](${array}${python3}e`, undefined, 2)),
  );
  assert.equal(
    layout.tensors.map(({ byteOffset, byteLength }) => [byteOffset === null, byteLength]),
    [
      [false, 8],
      [true, 8],
    ],
  );
  assert.is.not(unpack, null);
  const weighting = scalar('f8', '', '<').replace('C\0', encodedText('\0\0\0\0\0\0\xc3\xb8?'));
  assert.is((await layoutOf(`](${array}e`, weighting, 2)).weighting, 1.5);
});

test.run();
