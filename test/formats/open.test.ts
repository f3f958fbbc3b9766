// Every fixture of .npy arrays and weight files, against what the manifest says must become of it.
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { validateWeights } from '../../src/client/weights.ts';
import { isCambiumError } from '../../src/errors.ts';
import { encodeWeights } from '../../src/formats/encode.ts';
import { openWeights } from '../../src/formats/open.ts';
import { readTensors } from '../../src/formats/read.ts';
import { unpackWeights } from '../../src/formats/weights.ts';
import { memoryScratch, memorySource } from '../../src/tensor/bytes.ts';
import type { DType } from '../../src/tensor/dtypes.ts';
import type { Layout } from '../../src/tensor/layout.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { failsWith } from '../helpers/errors.ts';
import { FIXTURES, type Fixture, fixtureBytes, fixtures } from '../helpers/fixtures.ts';
import { bytesOf, counted, sparseSource, u64 } from '../helpers/pickles.ts';
import { zipOf } from '../helpers/zips.ts';

const test = suite('formats/open');
const manifest = fixtures();
const FOLDERS = [
  'npy',
  'bad-npy',
  'weights',
  'bad-weights',
  'bad-pickle',
  'npz',
  'bad-npz',
  'torch',
  'bad-torch',
  'safetensors',
  'bad-safetensors',
];

const digest = (...parts: Uint8Array[]) => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
};

async function checkGood(fixture: Fixture): Promise<void> {
  const bytes = fixtureBytes(fixture.file);
  const { layout, tensors, weighting } = await readTensors(memorySource(bytes, fixture.file));
  assert.is(layout.byteLength, fixture.bytes);
  const { weight, arrays_compact: compact, payload_offsets: offsets } = fixture;
  const arrays = layout.format === 'npz' ? checkWeighting(fixture, layout) : (fixture.arrays ?? []);
  if (layout.format === 'npz') {
    assert.is(fixture.file.slice(0, 4), 'npz/');
  } else if (weight === undefined) {
    assert.is(layout.format, fixture.file.slice(0, fixture.file.indexOf('/')));
    assert.is(weighting, null);
  } else {
    assert.is(layout.format, 'npy-object');
    assert.is(weighting, Number(weight.value));
    assert.is(layout.weightingType, weight.kind);
  }
  if (compact !== undefined) {
    assert.is(tensors.length, compact.count);
    for (const { dtype, shape } of tensors) assert.equal([dtype, shape], [compact.dtype, compact.shape]);
    assert.is(digest(...tensors.map(({ data }) => data)), compact.concat_sha256);
    return;
  }
  assert.is(tensors.length, arrays.length);
  for (const [i, expected] of arrays.entries()) {
    const { name, dtype, shape, data } = tensors[i]!;
    const { order, byteOffset } = layout.tensors[i]!;
    assert.equal([name, dtype, shape], [expected.name, expected.dtype, expected.shape]);
    if (expected.fortran_order !== undefined) assert.is(order, expected.fortran_order ? 'F' : 'C');
    assert.is(data.byteLength, expected.nbytes);
    assert.is(digest(data), expected.sha256);
    // Null there stands for shared bytes too, which do have an offset.
    if (typeof offsets?.[i] === 'number') assert.is(byteOffset, offsets[i]);
  }
}

/** In archives the weighting is an array too, and layers are positions. Gives the other arrays as they should come. */
function checkWeighting({ arrays = [] }: Fixture, { weighting, weightingType }: Layout) {
  const [first] = arrays;
  const hasWeighting = first?.name === 'weighting';
  assert.is(weightingType, hasWeighting ? 'float' : null);
  if (hasWeighting) assert.is(digest(new Uint8Array(new Float64Array([weighting!]).buffer)), first.sha256);
  return arrays
    .slice(hasWeighting ? 1 : 0)
    .map((array) => (array.name?.startsWith('layer_') ? { ...array, name: null } : array));
}

test('manifest and folders tell of the same files', () => {
  const files = FOLDERS.flatMap((folder) =>
    readdirSync(FIXTURES + folder)
      .filter((file) => !file.startsWith('.')) // where another suite unpacks one at this moment
      .map((file) => `${folder}/${file}`),
  );
  assert.equal(files.sort(), manifest.map(({ file }) => file).sort());
});

test('every fixture comes out as the manifest says', async () => {
  for (const fixture of manifest) {
    const source = memorySource(fixtureBytes(fixture.file), fixture.file);
    if (fixture.outcome === 'ok') {
      try {
        await checkGood(fixture);
      } catch (cause) {
        throw new Error(`${fixture.file}: ${String(cause)}`, { cause });
      }
    } else if (fixture.file === 'bad-npz/weights-no-weighting.npz') {
      // Aggregated files are like that, so they are read; nobody accepts them as an update.
      assert.is((await openWeights(source)).layout.weighting, null);
      await failsWith('weighting-missing', () => validateWeights(source));
    } else {
      // What is wrong with the elements is found by those who read them.
      const error = await failsWith(fixture.error!, async () =>
        unpackWeights(await openWeights(source), { scratch: memoryScratch }),
      );
      assert.ok(error.message.startsWith(`${fixture.file}: `), error.message);
      const { offset, file } = error as { offset?: number; file?: string };
      assert.is(file, fixture.file);
      assert.ok(
        offset !== undefined && offset >= 0 && offset <= fixture.bytes,
        `${fixture.file}: at ${offset}`,
      );
    }
  }
});

test('messages name the opcode, the global, the dtype and the cure', async () => {
  const cases: [file: string, ...words: string[]][] = [
    ['bad-pickle/opcode-newobj.npy', 'NEWOBJ', '266'],
    ['bad-pickle/opcode-unknown-ff.npy', '0xff'],
    ['bad-pickle/global-os-system.npy', 'os.system', 'nothing was imported'],
    ['bad-pickle/stack-global.npy', 'os.system'],
    ['bad-pickle/global-name-with-dot.npy', 'import'],
    ['bad-weights/torch-parameters.npy', 'torch', '.detach().cpu().numpy()'],
    ['bad-pickle/array-payload-short.npy', '7 bytes', '8'],
    ['bad-pickle/protocol-6.npy', 'protocol 6'],
    ['bad-pickle/memo-4e9.npy', '4294967295'],
    ['bad-weights/header-shape-differs.npy', '(3,)', '(2,)'],
    ['npy/unsupported-U3.npy', '"<U3"', 'text'],
    ['npy/unsupported-longdouble.npy', 'long double'],
    ['npy/unsupported-struct.npy', 'structured'],
    ['npy/unsupported-M8.npy', 'dates'],
    ['bad-npy/data-short.npy', '151', '152'],
    ['bad-npy/data-trailing.npy', '1 bytes'],
  ];
  for (const [file, ...words] of cases) {
    const code = manifest.find((fixture) => fixture.file === file)?.error ?? '';
    const { message } = await failsWith(code, () => openWeights(memorySource(fixtureBytes(file), file)));
    for (const word of words) assert.ok(message.includes(word), `${message} should say ${word}`);
  }
});

test('truncations of small good files are typed errors', async () => {
  for (const { file, outcome, bytes: size } of manifest) {
    if (outcome !== 'ok' || size > 600 || /^(safetensors|npz)\//.test(file)) continue;
    const bytes = fixtureBytes(file);
    // An instance of the core each time: every length in the suites of src/core, a sample of them here.
    for (let length = size - 1; length >= 0; length -= 1 + (length % 13)) {
      try {
        await openWeights(memorySource(bytes.subarray(0, length)));
        assert.unreachable(`${file} was accepted with ${length} of ${size} bytes`);
      } catch (error) {
        if (!isCambiumError(error)) throw error;
        // Nothing shorter than a file's magic can be told from another .npy.
        assert.ok(
          /^(npy|pickle)-.*truncated$|^npy-header-too-large$/.test(error.code),
          `${file}, ${length}: ${error.code}`,
        );
      }
    }
  }
});

test('changes of one byte of a header end in a typed error or a valid result', async () => {
  let accepted = 0;
  let refused = 0;
  for (const file of [
    'npy/f4-c-2x3.npy',
    'npy/hdr-v3.npy',
    'npy/f4-f-3x4x2.npy',
    'weights/np1-weight-zero.npy',
  ]) {
    const bytes = fixtureBytes(file);
    for (let at = 0; at < 72; at++) {
      const byte = bytes[at]!;
      for (let value = at % 61; value < 256; value += 61) {
        bytes[at] = value;
        try {
          const { layout } = await openWeights(memorySource(bytes));
          for (const { byteOffset, byteLength } of layout.tensors) {
            assert.ok(byteOffset !== null && byteOffset + byteLength <= bytes.byteLength);
          }
          accepted++;
        } catch (error) {
          if (!isCambiumError(error)) throw error;
          refused++;
        }
      }
      bytes[at] = byte;
    }
  }
  assert.ok(accepted > 0 && refused > 500, `${accepted} accepted, ${refused} refused`);
});

test('the layout of a model of 200 tensors and hundreds of gigabytes takes less than 64 KiB of reads', async () => {
  const dtypes: DType[] = ['float32', 'float16', 'float64', 'int64'];
  const tensors = Array.from({ length: 200 }, (_, i) => ({
    name: null,
    dtype: dtypes[i % 4]!,
    shape: i === 7 ? [1 << 20, 1 << 12] : [1 << 14, 1 << 14, 1 + (i % 2)],
  }));
  const encoding = await encodeWeights({ format: 'npy-object', weighting: 1329, tensors });
  const source = counted(sparseSource(encoding));
  const { layout } = await openWeights(source);
  assert.equal(
    layout.tensors.map(({ dtype, shape, byteOffset, byteLength }) => [dtype, shape, byteOffset, byteLength]),
    tensors.map(({ dtype, shape }, i) => [
      dtype,
      shape,
      encoding.payloads[i]!.offset,
      encoding.payloads[i]!.byteLength,
    ]),
  );
  assert.is(layout.weighting, 1329);
  assert.ok(layout.byteLength > 2 ** 37, `${layout.byteLength} bytes`);
  assert.ok(source.count.bytes < 65_536, `${source.count.bytes} bytes in ${source.count.calls} reads`);
});

test('a file of very many tensors is walked in a larger arena, and read about twice at most', async () => {
  const one = tensorOf(new Float32Array([1]));
  const tensors = Array.from({ length: 65_536 }, (_, i) => ({ ...one, name: `layer.${i}` }));
  const encoding = await encodeWeights({ format: 'npy-object', weighting: 2.5, tensors });
  const source = counted(sparseSource(encoding));
  const { layout } = await openWeights(source);
  assert.is(layout.tensors.length, 65_536);
  assert.is(layout.tensors[65_535]!.name, 'layer.65535');
  assert.ok(source.count.bytes < 2.5 * layout.byteLength, `${source.count.bytes} of ${layout.byteLength}`);
});

test('a source that answers with promises gives the same', async () => {
  for (const file of ['weights/np2-68000-bytes.npy', 'npy/hdr-9984-bytes.npy']) {
    const source = memorySource(fixtureBytes(file));
    const slow = {
      ...source,
      readInto: async (offset: number, target: Uint8Array) => source.readInto(offset, target),
    };
    assert.equal((await openWeights(slow)).layout, (await openWeights(source)).layout);
  }
});

test('a file that became shorter while it was read is an error', async () => {
  const bytes = fixtureBytes('weights/np1-int.npy');
  const source = { ...memorySource(bytes.subarray(0, 300)), byteLength: bytes.byteLength };
  const error = await failsWith('pickle-truncated', () => openWeights(source));
  assert.is((error as { offset?: number }).offset, 300);
  const shorter = { ...memorySource(bytes.subarray(0, 60)), byteLength: bytes.byteLength };
  await failsWith('npy-truncated', () => openWeights(shorter));
});

test('V2 is void16, or bfloat16 when the caller says so', async () => {
  for (const file of ['npy/bf16-lt-V2.npy', 'npy/bf16-bar-V2.npy']) {
    const source = memorySource(fixtureBytes(file));
    assert.is((await openWeights(source)).layout.tensors[0]!.dtype, 'void16');
    assert.is((await openWeights(source, { void16: 'bfloat16' })).layout.tensors[0]!.dtype, 'bfloat16');
  }
});

test('other containers are recognised, foreign bytes are not', async () => {
  const zip = (name: string) => zipOf([{ name, data: new Uint8Array(100) }]);
  const cases: [string, Uint8Array, string, string?][] = [
    ['npz', zip('layer_0.npy'), 'npy-magic', 'layer_0.npy'],
    ['the begin of an npz', zip('layer_0.npy').subarray(0, 100), 'zip-truncated'],
    ['torch', zip('archive/data.pkl'), 'pickle-protocol'],
    ['zip', zip('word/document.xml'), 'format-unsupported', 'zip'],
    ['torch of old', bytesOf('\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.'), 'format-unsupported', '1.6'],
    ['safetensors', bytesOf(u64(8), '{"a":1} '), 'st-json'],
    ['safetensors with blanks', bytesOf(u64(8), ' {"a":1}'), 'st-json'],
    ['safetensors too short', bytesOf(u64(200), '{"a":1}'), 'st-header-size', '200'],
    ['the begin of a.safetensors', bytesOf('\x10\0\0'), 'st-header-size', '3 bytes'],
    ['lines of JSON', bytesOf('{"a":1}\n{"b":2}'), 'format-unknown'],
    ['bare pickle', bytesOf('\x80\x03N.'), 'format-unsupported', 'pickle'],
    ['nothing', bytesOf(), 'npy-truncated'],
    ['the begin of a magic', bytesOf('\x93NU'), 'npy-truncated'],
    ['zeros', new Uint8Array(64), 'format-unknown'],
    ['text', bytesOf('{"weights": []}'), 'format-unknown'],
    ['png', bytesOf('\x89PNG\r\n\x1a\n', new Uint8Array(40)), 'format-unknown'],
  ];
  for (const [what, bytes, code, word = ''] of cases) {
    const error = await failsWith(code, () => openWeights(memorySource(bytes, what)));
    assert.ok(error.message.includes(word), error.message);
  }
});

test.run();
