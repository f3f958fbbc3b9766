// State dicts in torch archives. The fixtures are compared in open.test.ts; here is what they do not have.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openCore } from '../../src/core/core.ts';
import { PickleWalk } from '../../src/core/pickle.ts';
import { isCambiumError } from '../../src/errors.ts';
import { openWeights } from '../../src/formats/open.ts';
import { readTensors } from '../../src/formats/read.ts';
import { gatherViews, type View } from '../../src/formats/views.ts';
import { memoryScratch, memorySource } from '../../src/tensor/bytes.ts';
import { itemSize } from '../../src/tensor/dtypes.ts';
import { elementCount, type Layout } from '../../src/tensor/layout.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { fixtureBytes } from '../helpers/fixtures.ts';
import { bytesOf, u64 } from '../helpers/pickles.ts';
import { Random, testSeed } from '../helpers/random.ts';
import { dictOpcodes, storageOpcodes, torchArchive, unicode, viewOpcodes } from '../helpers/torch.ts';

const test = suite('formats/torch');

const floats = Float32Array.from({ length: 24 }, (_, i) => i + 0.5);
const storage = storageOpcodes('0', 24);
const data = { 'data/0': new Uint8Array(floats.buffer) };

/** Reads an archive of one object. */
const read = (object: string, members: Parameters<typeof torchArchive>[1] = data, protocol?: number) =>
  readTensors(memorySource(torchArchive(object, members, protocol)));

const readView = (first: number, shape: readonly number[], strides: readonly number[]) =>
  read(dictOpcodes(['x', viewOpcodes(storage, first, shape, strides)]));

/** The elements of a view in C order, one by one. */
function elementsOf(first: number, shape: readonly number[], strides: readonly number[]): number[] {
  let positions = [first];
  for (const [axis, dimension] of shape.entries()) {
    const steps = Array.from({ length: dimension }, (_, i) => i * strides[axis]!);
    positions = positions.flatMap((position) => steps.map((step) => position + step));
  }
  return positions;
}

test('views come out in C order, whatever their strides', async () => {
  const cases: [what: string, first: number, shape: number[], strides: number[], order: 'C' | 'F' | null][] =
    [
      ['all of it', 0, [2, 3, 4], [12, 4, 1], 'C'],
      ['a part', 5, [3, 4], [4, 1], 'C'],
      ['one element', 23, [], [], 'C'],
      ['one element of three axes', 23, [1, 1, 1], [9, 99, 0], 'C'],
      ['strides of axes of one index', 0, [1, 4, 1, 3], [77, 3, 55, 1], 'C'],
      ['transposed', 0, [4, 3], [1, 4], 'F'],
      ['transposed, three axes', 0, [4, 3, 2], [1, 4, 12], 'F'],
      ['permuted', 0, [4, 2, 3], [1, 12, 4], null],
      ['every second', 1, [12], [2], null],
      ['columns of a matrix', 2, [6, 2], [4, 1], null],
      ['a diagonal', 0, [4], [5], null],
      ['expanded', 3, [5], [0], null],
      ['expanded rows', 4, [3, 4], [0, 1], null],
      ['windows that overlap', 0, [5, 4], [2, 1], null],
      ['nothing', 0, [0, 3], [3, 1], 'C'],
      ['nothing, beyond the end', 99, [2, 0], [50, 50], 'C'],
    ];
  for (const [what, first, shape, strides, order] of cases) {
    const { layout, tensors, weighting } = await readView(first, shape, strides);
    const [tensor] = layout.tensors;
    assert.is(weighting, null);
    assert.equal([tensor!.name, tensor!.dtype, tensor!.shape], ['x', 'float32', shape], what);
    assert.is(tensor!.order, order ?? 'C', what);
    assert.is(tensor!.byteOffset === null, order === null, what);
    const expected = elementsOf(first, shape, strides).map((position) => floats[position]!);
    sameBytes(tensors[0]!.data, new Uint8Array(Float32Array.from(expected).buffer), what);
  }
});

test('random views, gathered through small buffers, are what picking one by one gives', async () => {
  const random = new Random(testSeed());
  const bytes = Uint8Array.from({ length: 4096 }, (_, i) => (i * 37) ^ (i >> 5));
  const source = memorySource(bytes);
  for (let round = 0; round < 400; round++) {
    const dtype = random.pick(['int8', 'float16', 'float32', 'complex128'] as const);
    const size = itemSize(dtype);
    const shape = Array.from({ length: random.integer(0, 4) }, () => random.integer(1, 6));
    const strides = shape.map(() => random.integer(0, 12));
    const first = random.integer(0, 9);
    const byteLength = elementCount(shape) * size;
    const view: View = { dtype, shape, strides, order: null, byteOffset: first * size, byteLength };
    const layout: Layout = {
      format: 'torch',
      weighting: null,
      weightingType: null,
      tensors: [{ name: 'x', dtype, shape, order: 'C', byteOrder: 'little', byteOffset: null, byteLength }],
      byteLength: 4096,
    };
    const options = { scratch: memoryScratch };
    const buffer = random.pick([16, 48, 100, 1000, 1 << 20]);
    const gathered = await gatherViews(source, layout, [view], options, buffer);
    const { byteOffset } = gathered.layout.tensors[0]!;
    const actual = new Uint8Array(byteLength);
    assert.is(await gathered.source.readInto(byteOffset!, actual), byteLength);
    const expected = elementsOf(first, shape, strides).map((at) =>
      bytes.subarray(at * size, (at + 1) * size),
    );
    sameBytes(actual, bytesOf(...expected), `round ${round}`);
    // Across the border too.
    const both = new Uint8Array(8 + byteLength);
    await gathered.source.readInto(4088, both);
    sameBytes(both, bytesOf(bytes.subarray(4088), actual), `round ${round}`);
  }
});

test('storages of every dtype, shared ones, and keys that are no numbers', async () => {
  const types: [type: string, dtype: string, size: number][] = [
    ['Bool', 'bool', 1],
    ['Char', 'int8', 1],
    ['Byte', 'uint8', 1],
    ['Short', 'int16', 2],
    ['Int', 'int32', 4],
    ['Long', 'int64', 8],
    ['Half', 'float16', 2],
    ['BFloat16', 'bfloat16', 2],
    ['Float', 'float32', 4],
    ['Double', 'float64', 8],
    ['ComplexFloat', 'complex64', 8],
    ['ComplexDouble', 'complex128', 16],
  ];
  for (const [type, dtype, size] of types) {
    const of = storageOpcodes('weird key', 3, `${type}Storage`);
    const { tensors } = await read(
      dictOpcodes(['a', viewOpcodes(of, 0, [3], [1])], ['b', viewOpcodes(of, 1, [2], [1])]),
      { 'data/weird key': new Uint8Array(3 * size).map((_, i) => i & 1) },
    );
    assert.equal(
      tensors.map((tensor) => [tensor.name, tensor.dtype, tensor.data.byteLength]),
      [
        ['a', dtype, 3 * size],
        ['b', dtype, 2 * size],
      ],
    );
  }
});

const x = viewOpcodes(storage, 0, [24], [1]);

test('what torch wraps around a state dict does not matter', async () => {
  const ordered = 'ccollections\nOrderedDict\n)R';
  const metadata = `}${unicode('_metadata')}${ordered}(${unicode('')}}${unicode('version')}K\x01susb`;
  const parameter = `ctorch._utils\n_rebuild_parameter\n(${x}\x88${ordered}tR`;
  const cases: [what: string, object: string, names: string[]][] = [
    ['no tensors', '}', []],
    ['an ordered dict', `${ordered}(${unicode('x')}${x}u`, ['x']],
    ['one entry by SETITEM', `}${unicode('x')}${x}s`, ['x']],
    ['two batches', `}(${unicode('x')}${x}u(${unicode('y')}${x}u`, ['x', 'y']],
    ['metadata', `${ordered}(${unicode('x')}${x}u${metadata}`, ['x']],
    ['parameters', dictOpcodes(['x', parameter]), ['x']],
    ['names in UTF-8', dictOpcodes(['größe', x], ['', x]), ['größe', '']],
  ];
  for (const [what, object, names] of cases) {
    for (const protocol of [2, 3, 4, 5]) {
      const { tensors } = await read(object, data, protocol);
      assert.equal(
        tensors.map(({ name }) => name),
        names,
        what,
      );
    }
  }
});

test('what is no state dict, and what lies about its storages, is refused', async () => {
  const view = (first: number, shape: readonly number[], strides: readonly number[], of = storage) =>
    dictOpcodes(['x', viewOpcodes(of, first, shape, strides)]);
  const numpyName = 'cnumpy\ndtype\n';
  const cases: [what: string, code: string, object: string, members?: Parameters<typeof torchArchive>[1]][] =
    [
      ['reaches past the end', 'torch-storage', view(1, [24], [1])],
      ['one element too far', 'torch-storage', view(24, [], [])],
      ['negative offset', 'torch-storage', view(-1, [2], [1])],
      ['negative stride', 'torch-storage', view(5, [2], [-1])],
      ['negative dimension', 'torch-storage', view(0, [-2], [1])],
      ['overflow', 'torch-storage', view(0, [2 ** 40, 2 ** 40], [0, 0])],
      ['overflow, and empty', 'torch-storage', view(0, [2 ** 40, 2 ** 40, 0], [0, 0, 0])],
      ['strides that overflow', 'torch-storage', view(0, [3, 3], [2 ** 62, 2 ** 62])],
      ['a bomb of expansion', 'torch-storage', view(0, [2 ** 30], [0])],
      ['too few bytes', 'torch-storage', view(0, [2], [1]), { 'data/0': new Uint8Array(95) }],
      ['too many bytes', 'torch-storage', view(0, [2], [1]), { 'data/0': new Uint8Array(97) }],
      ['no such storage', 'torch-storage', view(0, [2], [1], storageOpcodes('1', 24))],
      ['a storage outside', 'torch-storage', view(0, [2], [1], storageOpcodes('../version', 24))],
      ['fewer strides than dimensions', 'pickle-structure', view(0, [2, 2], [1])],
      ['65 dimensions', 'pickle-structure', view(0, new Array(65).fill(1), new Array(65).fill(1))],
      [
        'a dimension of 128 bits',
        'pickle-structure',
        view(0, [2], [1]).replace('(J\x02\0\0\0t', '(\x8a\x09\0\0\0\0\0\0\0\0\x01t'),
      ],
      ['a conjugated view', 'pickle-structure', view(0, [2], [1]).replace(')RtR', ')R}tR')],
      [
        'a storage of another kind',
        'pickle-structure',
        view(0, [2], [1]).replace('X\x07\0\0\0storage', 'X\x07\0\0\0module_'),
      ],
      ['a persistent id that is text', 'pickle-structure', `${unicode('0')}Q`],
      ['an odd number of items', 'pickle-structure', `}(${unicode('x')}u`],
      ['items of a list', 'pickle-structure', `](${unicode('x')}${x}u`],
      ['a dict in itself', 'pickle-structure', `}q\x00(${unicode('x')}h\x00u${unicode('y')}${x}s`],
      ['names of NumPy', 'pickle-global', numpyName],
      ['a class that is no storage', 'pickle-global', 'ctorch\nUntypedStorage\n'],
      ['a name cut short', 'pickle-global', 'ctorch\nFloatStorag\n'],
      ['a name with more', 'pickle-global', 'ctorch\nFloatStorages\n'],
      ['a module with a blank', 'pickle-global', 'ctorch FloatStorage\n\n'],
      ['a tensor alone', 'weights-form', x],
      ['a list of tensors', 'weights-form', `](${x}e`],
      ['a number in it', 'weights-form', dictOpcodes(['x', x], ['epoch', 'K\x01'])],
      ['a dict in it', 'weights-form', dictOpcodes(['x', dictOpcodes(['y', x])])],
      ['a number for a name', 'weights-form', `}(K\x01${x}u`],
      ['a name twice', 'weights-form', dictOpcodes(['x', x], ['x', x])],
      ['nothing', 'pickle-structure', ''],
      ['two objects', 'pickle-structure', '}}'],
      ['an opcode of none', 'pickle-opcode', '}0'],
      ['big endian', 'torch-byteorder', dictOpcodes(['x', x]), { byteorder: bytesOf('big') }],
      [
        'an order that nobody knows',
        'torch-byteorder',
        dictOpcodes(['x', x]),
        { byteorder: bytesOf('little-ish') },
      ],
      ['a weighting that is none', 'weights-form', dictOpcodes(['x', x]), { weighting: bytesOf('many') }],
      [
        'a weighting without end',
        'weights-form',
        dictOpcodes(['x', x]),
        { weighting: bytesOf('1'.repeat(401)) },
      ],
      ['TorchScript', 'weights-form', dictOpcodes(['x', x]), { 'constants.pkl': bytesOf('\x80\x02).') }],
      [
        'a compressed storage',
        'torch-storage',
        dictOpcodes(['x', x]),
        { 'data/0': { name: '', data: data['data/0'], deflate: true } },
      ],
    ];
  for (const [what, code, object, members = data] of cases) {
    const bytes = torchArchive(object, { ...members });
    const error = await failsWith(code, () => openWeights(memorySource(bytes, what))).catch((cause) => {
      throw new Error(what, { cause });
    });
    assert.ok(error.message.startsWith(`${what}: `) && /at byte \d+/.test(error.message), error.message);
  }
});

test('messages name the cure', async () => {
  const module = await failsWith('pickle-global', () => read('ctorch.nn.modules.linear\nLinear\n'));
  assert.match(module.message, /torch\.nn\.modules\.linear\.Linear.*nothing was imported.*state_dict/);
  const checkpoint = await failsWith('weights-form', () => read(dictOpcodes(['epoch', 'K\x01'])));
  assert.match(checkpoint.message, /save the state dict alone/);
});

test('the opcodes and names of torch stay out of weight files, and the other way round', async () => {
  const torchNames = [
    'ctorch\nFloatStorage\n',
    'ccollections\nOrderedDict\n',
    'ctorch._utils\n_rebuild_tensor_v2\n',
  ];
  const core = await openCore();
  try {
    const cases: [string, isTorch: boolean, kind: string][] = [
      ...torchNames.flatMap((name): [string, boolean, string][] => [
        [name, false, 'refused'],
        [name, true, 'need'],
      ]),
      ['cnumpy\nndarray\n', false, 'need'],
      ['cnumpy\nndarray\n', true, 'refused'],
      [')Q', false, 'refused'],
      ['}', false, 'refused'],
      ['}', true, 'need'],
    ];
    for (const [opcodes, isTorch, kind] of cases) {
      core.scope(() => {
        const bytes = bytesOf('\x80\x02', opcodes);
        const walk = new PickleWalk(core, 0, bytes.byteLength + 1, isTorch);
        walk.window(bytes.byteLength).set(bytes);
        assert.is(walk.walk(bytes.byteLength, 0).kind, kind, `${opcodes}, ${isTorch}`);
      });
    }
  } finally {
    core.close();
  }
});

test('fed byte by byte, the pickle of a state dict gives the same views', async () => {
  const bytes = fixtureBytes('torch/state-dict.pt');
  const core = await openCore();
  try {
    const [whole, single] = [65_536, 1].map((size) =>
      core.scope(() => {
        const walk = new PickleWalk(core, 64, 64 + 627, true);
        for (let need = { offset: 64, byteLength: 1 }; ; ) {
          const part = bytes.subarray(need.offset, need.offset + Math.max(size, need.byteLength));
          const window = part.subarray(0, 691 - need.offset);
          walk.window(window.byteLength).set(window);
          const step = walk.walk(window.byteLength, need.offset);
          if (step.kind === 'need') need = step;
          else if (step.kind === 'done') return walk.takeViews();
          else throw new Error(step.kind);
        }
      }),
    );
    assert.equal(single, whole);
    assert.is(whole!.kind === 'tensors' && whole!.records.length, 6);
  } finally {
    core.close();
  }
});

test('every truncation is refused, every change of a byte ends in a typed error or a valid layout', async () => {
  const bytes = fixtureBytes('torch/state-dict.pt');
  for (let length = 0; length < bytes.byteLength; length++) {
    try {
      await openWeights(memorySource(bytes.subarray(0, length)));
      assert.unreachable(`${length} bytes were accepted`);
    } catch (error) {
      if (!isCambiumError(error)) throw error;
    }
  }
  let accepted = 0;
  let refused = 0;
  for (let at = 0; at < bytes.byteLength; at++) {
    const byte = bytes[at]!;
    for (let value = at % 23; value < 256; value += 23) {
      if (value === byte) continue;
      bytes[at] = value;
      try {
        const { tensors } = await readTensors(memorySource(bytes));
        for (const { dtype, shape, data: elements } of tensors) {
          assert.is(elements.byteLength, elementCount(shape) * itemSize(dtype));
        }
        accepted++;
      } catch (error) {
        if (!isCambiumError(error)) throw error;
        refused++;
      }
    }
    bytes[at] = byte;
  }
  assert.ok(accepted > 1_000 && refused > 5_000, `${accepted} accepted, ${refused} refused`);
});

test('as many tensors as a file may have, and one more', async () => {
  const first = `${unicode('0')}${x}q\x00`;
  const entries = (count: number) =>
    Array.from(
      { length: count - 1 },
      (_, i) => `${i % 1000 === 0 ? 'u(' : ''}${unicode(String(i + 1))}h\x00`,
    );
  const { layout } = await read(`}(${first}${entries(65_536).join('')}u`);
  assert.is(layout.tensors.length, 65_536);
  await failsWith('pickle-limit', () => read(`}(${first}${entries(65_537).join('')}u`));
});

test('a number of 64 bits is a number, one of more is none', async () => {
  const large = `\x8a\x08${u64(2n ** 62n)}`;
  const object = dictOpcodes([
    'x',
    viewOpcodes(storage, 0, [1], [1]).replace('(J\x01\0\0\0t\x89', `(${large}t\x89`),
  ]);
  assert.is((await read(object)).tensors[0]!.data.byteLength, 4);
});

test.run();
