import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readTensors } from '../../src/formats/read.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { bytesOf } from '../helpers/pickles.ts';

const test = suite('formats/read');

function npyOf(descr: string, isFortran: boolean, shape: readonly number[], data: Uint8Array): Uint8Array {
  const text = `{'descr': '${descr}', 'fortran_order': ${isFortran ? 'True' : 'False'}, 'shape': (${shape.map((n) => `${n},`).join('')})}`;
  return bytesOf('\x93NUMPY\x01\x00', text.length, 0, text, data);
}

const upTo = (n: number) => Uint8Array.from({ length: n }, (_, i) => i);

test('Fortran order comes out in C order', async () => {
  for (const shape of [[], [5], [2, 3], [3, 1, 2], [2, 3, 4, 2], [0, 3], [1, 1, 1]]) {
    const count = shape.reduce((product, n) => product * n, 1);
    // Element i of the file has the index whose first part moves fastest.
    const expected = new Uint8Array(count);
    for (let i = 0; i < count; i++) {
      let rest = i;
      const index = shape.map((n) => {
        const part = rest % n;
        rest = Math.floor(rest / n);
        return part;
      });
      expected[shape.reduce((at, n, axis) => at * n + index[axis]!, 0)] = i;
    }
    const { tensors } = await readTensors(memorySource(npyOf('|u1', true, shape, upTo(count))));
    sameBytes(tensors[0]!.data, expected, `(${shape})`);
  }
});

test('big endian comes out in little endian, component by component', async () => {
  const cases: [descr: string, data: string, expected: string][] = [
    ['>u2', '\x01\x02\x03\x04', '\x02\x01\x04\x03'],
    ['>f4', '\x01\x02\x03\x04', '\x04\x03\x02\x01'],
    ['>i8', '\x01\x02\x03\x04\x05\x06\x07\x08', '\x08\x07\x06\x05\x04\x03\x02\x01'],
    ['>c8', '\x01\x02\x03\x04\x05\x06\x07\x08', '\x04\x03\x02\x01\x08\x07\x06\x05'],
    ['>u1', '\x01\x02', '\x01\x02'],
    ['>V2', '\x01\x02', '\x01\x02'],
  ];
  for (const [descr, data, expected] of cases) {
    const item = Number(/\d+/.exec(descr)![0]);
    const file = npyOf(descr, false, [data.length / item], bytesOf(data));
    const { tensors } = await readTensors(memorySource(file));
    sameBytes(tensors[0]!.data, bytesOf(expected), descr);
  }
});

test('a source that ends within the elements is an error', async () => {
  const file = npyOf('<f4', false, [2], upTo(8));
  const { layout } = await readTensors(memorySource(file));
  await failsWith('npy-data-truncated', () => readTensors(memorySource(file.subarray(0, -1)), layout));
});

test('the bytes of the source are left alone', async () => {
  const file = npyOf('>f4', true, [2, 2], upTo(16));
  const before = file.slice();
  await readTensors(memorySource(file));
  assert.equal(file, before);
});

test.run();
