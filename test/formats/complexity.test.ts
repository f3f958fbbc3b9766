// Files that want to cost more than their size. What is counted is what a reader asks of its source and what memory it
// takes; a cost that is not linear in what was read, or a reader that goes on behind a limit, fails here whatever the
// speed of the machine. Splits, limits of the walker and its arena: test/core/pickle.test.ts.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isCambiumError } from '../../src/errors.ts';
import { openWeights } from '../../src/formats/open.ts';
import { type ByteSource, memorySource } from '../../src/tensor/bytes.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { countAllocations } from '../helpers/allocations.ts';
import { arrayOpcodes, bytesOf, counted, u32, u64, weightFile } from '../helpers/pickles.ts';
import { fileOf } from '../helpers/round-trips.ts';

const test = suite('formats/complexity');
const array = arrayOpcodes('K\x02\x85', 'C\x0812345678');

/** Outcome and costs of finding a layout. */
async function cost(source: ByteSource) {
  const meter = counted(source);
  const { result, bytes: memory } = await countAllocations(async () => {
    try {
      return (await openWeights(meter)).layout.tensors.length;
    } catch (error) {
      if (!isCambiumError(error)) throw error;
      return error.code;
    }
  });
  return { result, memory, ...meter.count, byteLength: source.byteLength };
}

/** A weight file that begins with `head` and goes on with `unit` for `byteLength` bytes: it is nowhere in memory. */
function endless(head: string, unit: string, byteLength: number): ByteSource {
  const begin = weightFile(head).subarray(0, -'etb.'.length);
  const pattern = bytesOf(unit);
  return {
    name: 'endless',
    byteLength,
    readInto(offset, target) {
      const length = Math.min(target.byteLength, byteLength - offset);
      for (let i = 0; i < length; i++) {
        const at = offset + i;
        target[i] =
          at < begin.byteLength ? begin[at]! : pattern[(at - begin.byteLength) % pattern.byteLength]!;
      }
      return length;
    },
    close() {},
  };
}

/**
 * A walk that outgrows its arena begins again with four times as much, so bytes can be read 1 + 1 + 1/4 + 1/16 … times.
 */
const READS_PER_BYTE = 2.4;

/** Costs of an input of one, two and four times a size are bounded by the size times a constant. */
async function followsSize(make: (n: number) => ByteSource, n: number): Promise<void> {
  for (const size of [n, 2 * n, 4 * n]) {
    const { result, bytes, calls, memory, byteLength } = await cost(make(size));
    const text = `${bytes} bytes in ${calls} reads, ${memory} bytes of memory for ${byteLength}`;
    assert.type(result, 'number', String(result));
    assert.ok(bytes <= READS_PER_BYTE * byteLength + 4_096, text);
    assert.ok(calls <= (READS_PER_BYTE * byteLength) / 32_768 + 24, text);
    assert.ok(memory <= 256 * byteLength + (8 << 20), text);
  }
}

test('costs follow the size of the file, up to ten thousand tiny arrays', async () => {
  const shapes: Record<string, (n: number) => string> = {
    arrays: (n) => `](${array.repeat(n)}e`,
    'arrays with names': (n) =>
      `](${Array.from({ length: n }, (_, i) => `](X\x05\0\0\0${String(i).padStart(5, '0')}${array}e`).join('')}e`,
    'references to one array': (n) => `](${array}q\x01${'h\x01'.repeat(n)}e`,
    'empty lists': (n) => `](${'](e'.repeat(n)}${array}e`,
    'objects stored again and again': (n) => `](${array}${'q\x01'.repeat(n)}e`,
    'dimensions of one': (n) =>
      `](${arrayOpcodes(`(${'K\x01'.repeat(63)}K\x02t`, 'C\x0812345678').repeat(n / 20)}e`,
  };
  for (const make of Object.values(shapes)) {
    await followsSize((n) => memorySource(weightFile(make(n))), 2_500);
  }
});

test('what goes on without end is left at a limit, not read to its end', async () => {
  const size = 20_000_000;
  const cases: [what: string, head: string, unit: string, code: string, read: number][] = [
    ['ten million references to one array', `](${array}q\x01`, 'h\x01', 'pickle-limit', 400_000],
    ['twenty million lists in one another', '', ']', 'pickle-limit', 400_000],
    ['twenty million MARKs', '', '(', 'pickle-limit', 40_000],
    ['tuples in tuples', ')', '\x85', 'pickle-limit|weights-form|pickle-structure', 11_000_000],
    ['an object stored ten million times', ']', 'q\x01', 'pickle-limit', 12_000_000],
    ['a line without end', 'c', 'x', 'pickle-limit', 4_000],
    ['frames in one another', '', `\x95${u64(19_000_000)}`, 'pickle-structure', 4_000],
  ];
  for (const [what, head, unit, codes, most] of cases) {
    const { result, bytes, memory } = await cost(endless(head, unit, size));
    assert.ok(codes.split('|').includes(String(result)), `${what}: ${result}`);
    assert.ok(bytes <= most, `${what}: ${bytes} bytes read`);
    assert.ok(memory <= 64 * bytes + (16 << 20), `${what}: ${memory} bytes of memory`);
  }
});

test('nothing is read or allocated on a promise', async () => {
  const npy2 = bytesOf('\x93NUMPY\x02\x00', u32(0xfffffff0), "{'descr'");
  const vast = bytesOf(
    '\x93NUMPY\x01\x00\x76\x00',
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".padEnd(117),
    '\n',
  );
  const payload = (opcodes: string) => weightFile(`](${arrayOpcodes('J\xff\xff\xff\x1f\x85', opcodes)}e`);
  const cases: [string, Uint8Array][] = [
    ['a .npy header of 4 GiB', npy2],
    ['an array of 8 TB', vast],
    ['a payload of 2 GiB', payload(`B${u32(0x7fff_fffc)}`)],
    ['a payload of 2^63 bytes', payload(`\x8e${u64(2n ** 63n - 1n)}`)],
    ['a text of 4 GiB', weightFile(`X${u32(0xffff_ffff)}`)],
    ['a safetensors header of 90 MB', bytesOf(u64(90_000_000), '{"a":{')],
    [
      'an archive with a member of 4 GiB',
      bytesOf('PK\x03\x04', '\0'.repeat(22), '\x05\0\0\0a.npy', u32(0xffff_ffff)),
    ],
  ];
  for (const [what, bytes] of cases) {
    const { result, memory, bytes: read } = await cost(memorySource(bytes));
    assert.type(result, 'string', what);
    assert.ok(
      memory <= 100_000 && read <= 4 * bytes.byteLength + 1_024,
      `${what}: ${memory} bytes, ${read} read`,
    );
  }
});

test('a .npy header of 100,000 entries is refused for its length, one of the longest for its content', async () => {
  const header = (length: number) => {
    const text = `{${"'descr': '<f4', ".repeat(Math.ceil(length / 16))}`.slice(0, length - 1);
    return memorySource(bytesOf('\x93NUMPY\x02\x00', u32(length), text, '\n'));
  };
  const long = await cost(header(1_600_000));
  assert.is(long.result, 'npy-header-too-large');
  assert.ok(long.bytes <= 1_024, `${long.bytes} bytes read`);
  const longest = await cost(header(10_000));
  assert.is(longest.result, 'npy-header-keys');
  assert.ok(longest.bytes <= 21_000, `${longest.bytes} bytes read`);
});

test('a safetensors header of 100,000 entries is read once', async () => {
  const file = (count: number) => {
    const entry = (i: number) => `"layer.${i}":{"dtype":"F32","shape":[0,${i}],"data_offsets":[0,0]}`;
    const text = `{${Array.from({ length: count }, (_, i) => entry(i)).join(',')}}`;
    return memorySource(bytesOf(u64(text.length), text));
  };
  const { result, bytes, memory, byteLength, calls } = await cost(file(100_000));
  assert.ok(result === 100_000 || result === 'st-limit', String(result));
  assert.ok(
    bytes <= byteLength + 1_024 && memory <= 4 * byteLength && calls <= 4,
    `${bytes} read, ${memory} bytes`,
  );
  await followsSize(file, 5_000);
});

test('archives cost a few reads for each member', async () => {
  for (const format of ['npz', 'torch'] as const) {
    for (const count of [1_000, 4_000]) {
      const tensors = Array.from({ length: count }, () => tensorOf(Uint8Array.of(1, 2)));
      const file = memorySource(await fileOf({ weighting: null, tensors }, { format }));
      const { result, bytes, calls, memory } = await cost(file);
      const text = `${format}: ${bytes} of ${file.byteLength} bytes in ${calls} reads, ${memory} bytes of memory`;
      assert.is(result, count);
      assert.ok(bytes <= 2 * file.byteLength && calls <= 3 * count + 64, text);
      assert.ok(memory <= 16 * file.byteLength + (8 << 20), text);
    }
  }
});

test.run();
