import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { FormatError, isCambiumError } from '../../src/errors.ts';
import { endsLikeZip, readZipDirectory } from '../../src/formats/zip.ts';
import { memorySource } from '../../src/tensor/bytes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { bytesOf, counted, u32, u64 } from '../helpers/pickles.ts';
import { crc32Of, type ZipPart, zipOf } from '../helpers/zips.ts';

const test = suite('formats/zip');

const data = bytesOf('hello, hello, hello');
const a: ZipPart = { name: 'a', data };
const b: ZipPart = { name: 'folder/b', data: new Uint8Array(1000), deflate: true };
const padding = bytesOf('FB\x24\x00', new Uint8Array(36));

const GOOD: readonly [what: string, bytes: Uint8Array, names: readonly string[]][] = [
  ['nothing', zipOf([]), []],
  ['stored and deflated', zipOf([a, b]), ['a', 'folder/b']],
  ['a comment', zipOf([a, b], { comment: 'made by hand' }), ['a', 'folder/b']],
  ['zip64 records', zipOf([a, b], { zip64: true }), ['a', 'folder/b']],
  [
    'what torch writes',
    zipOf(
      [
        { ...a, descriptor: 32, localExtra: padding },
        { ...b, descriptor: 64 },
      ],
      { zip64: true },
    ),
    ['a', 'folder/b'],
  ],
  ['letters of other scripts', zipOf([{ ...a, name: 'größe/整' }]), ['größe/整']],
  ['an empty member', zipOf([{ name: 'none', data: new Uint8Array(0) }, a]), ['none', 'a']],
];

for (const [what, bytes, names] of GOOD) {
  test(`${what}: members where they are`, async () => {
    const members = await readZipDirectory(memorySource(bytes));
    assert.equal(
      members.map(({ name }) => name),
      names,
    );
    for (const { name, method, crc32, byteOffset, packedLength, byteLength } of members) {
      const packed = bytes.subarray(byteOffset, byteOffset + packedLength);
      if (method === 'stored') {
        assert.is(byteLength, packedLength);
        assert.is(crc32, crc32Of(packed), name);
      }
      if (name === 'a') sameBytes(packed, data);
    }
  });
}

const end = (bytes: Uint8Array) => bytes.byteLength - 22;

/** The same bytes with some of them replaced. */
function patched(bytes: Uint8Array, at: number, ...parts: (string | number | Uint8Array)[]): Uint8Array {
  const copy = bytes.slice();
  copy.set(bytesOf(...parts), at);
  return copy;
}

const two = zipOf([a, b]);
const large = zipOf([a, b], { zip64: true });

const BAD: readonly [what: string, code: string, bytes: Uint8Array][] = [
  ['nothing at all', 'zip-not-zip', bytesOf()],
  ['something before', 'zip-not-zip', zipOf([a], { before: '#!/bin/sh\n' })],
  [
    'a hidden member before',
    'zip-not-zip',
    bytesOf(zipOf([a]).subarray(0, 50), zipOf([a], { before: ' '.repeat(50) }).subarray(50)),
  ],
  ['no end record', 'zip-truncated', two.subarray(0, end(two))],
  ['something behind', 'zip-truncated', bytesOf(two, 'x')],
  [
    'two end records',
    'zip-mismatch',
    zipOf([a], {
      comment: `${zipOf([])
        .reduce((text, byte) => text + String.fromCharCode(byte), '')
        .slice(0, 20)}\x02\x00ab`,
    }),
  ],
  ['several disks', 'zip-mismatch', patched(two, end(two) + 4, 1)],
  ['two numbers of entries', 'zip-mismatch', patched(two, end(two) + 8, 1)],
  ['too many entries for the directory', 'zip-mismatch', zipOf([a, b], { count: 7 })],
  ['one entry less', 'zip-mismatch', zipOf([a, b], { count: 1 })],
  ['a directory elsewhere', 'zip-mismatch', patched(two, end(two) + 16, 1)],
  ['bytes before the directory', 'zip-mismatch', zipOf([a, b], { gap: 3 })],
  ['zip64: another count', 'zip-mismatch', patched(large, end(large) - 20 - 56 + 32, 3)],
  ['zip64: another length', 'zip-mismatch', patched(large, end(large) - 20 - 56 + 4, 45)],
  ['zip64: locator too far', 'zip-mismatch', patched(large, end(large) - 12, u64(2 ** 40))],
  ['zip64: locator beyond 2^53', 'zip-truncated', patched(large, end(large) - 12, u64(2n ** 60n))],
  ['zip64: no record there', 'zip-mismatch', patched(large, end(large) - 12, u64(4))],
  ['encrypted', 'zip-encrypted', zipOf([{ ...a, flags: 1 }])],
  ['encrypted directory', 'zip-encrypted', zipOf([{ ...a, flags: 1 << 13 }])],
  ['patch data', 'zip-method', zipOf([{ ...a, flags: 1 << 5 }])],
  ['LZMA', 'zip-method', zipOf([{ ...a, entry: { method: 14 } }])],
  ['methods differ', 'zip-mismatch', zipOf([{ ...a, entry: { method: 8 } }])],
  ['names differ', 'zip-mismatch', zipOf([{ ...a, localName: 'b' }])],
  ['lengths of names differ', 'zip-mismatch', zipOf([{ ...a, localName: 'bb' }])],
  ['twice one name', 'zip-duplicate', zipOf([a, a])],
  ['overlap', 'zip-overlap', zipOf([a, { ...b, entry: { offset: 0 } }])],
  ['stored with two sizes', 'zip-size', zipOf([{ ...a, descriptor: 32, entry: { byteLength: 20 } }])],
  ['sizes differ', 'zip-mismatch', zipOf([{ ...a, entry: { byteLength: 20 } }])],
  ['CRC-32 differ', 'zip-mismatch', zipOf([{ ...a, entry: { crc32: 1 } }])],
  ['larger than deflate can', 'zip-size', zipOf([{ ...b, descriptor: 32, entry: { byteLength: 2 ** 31 } }])],
  ['beyond the file', 'zip-truncated', zipOf([{ ...a, entry: { packedLength: 2 ** 30 } }])],
  ['a descriptor that lies', 'zip-mismatch', zipOf([{ ...a, descriptor: 32, entry: { crc32: 1 } }])],
  ['an extra field too long', 'zip-mismatch', zipOf([{ ...a, localExtra: bytesOf('FB\x05\x00abcd') }])],
  ['a piece of an extra field', 'zip-mismatch', zipOf([{ ...a, localExtra: bytesOf('FB') }])],
  [
    'two zip64 fields',
    'zip-mismatch',
    zipOf([{ ...a, localExtra: bytesOf('\x01\x00\x00\x00', '\x01\x00\x00\x00') }]),
  ],
  ...['', '/etc/a', 'a\0b', 'a\\b', '..', 'a/../b', 'C:a'].map(
    (name) => [`the name ${JSON.stringify(name)}`, 'zip-name', zipOf([{ ...a, name }])] as const,
  ),
  ['a name that is not marked as UTF-8', 'zip-name', zipOf([{ ...a, name: 'é', flags: 0 }])],
].map(([what, code, bytes]) => [what, code, bytes] as [string, string, Uint8Array]);

for (const [what, code, bytes] of BAD) {
  test(`${what}: ${code}`, async () => {
    const error = await failsWith(code, () => readZipDirectory(memorySource(bytes, 'it')));
    assert.instance(error, FormatError);
    const { offset = -1 } = error as FormatError;
    assert.ok(offset >= 0 && offset <= bytes.byteLength, `at ${offset}`);
    assert.ok(error.message.startsWith('it: '));
  });
}

test('every truncation is refused, and every change of a byte is refused or harmless', async () => {
  const bytes = zipOf([{ ...a, descriptor: 32, localExtra: padding }, b], { zip64: true });
  for (let length = 0; length < bytes.byteLength; length++) {
    await failsWith('zip-not-zip|zip-truncated|zip-mismatch', () =>
      readZipDirectory(memorySource(bytes.subarray(0, length))),
    );
  }
  for (let at = 0; at < bytes.byteLength; at++) {
    for (const flip of [1, 0x80, 0xff]) {
      const changed = patched(bytes, at, bytes[at]! ^ flip);
      try {
        for (const { byteOffset, packedLength } of await readZipDirectory(memorySource(changed))) {
          assert.ok(byteOffset + packedLength <= bytes.byteLength);
        }
      } catch (error) {
        if (!isCambiumError(error)) throw error;
        assert.ok(error.code.startsWith('zip-'), error.code);
      }
    }
  }
});

test('a declared size makes nobody read or allocate it', async () => {
  const bytes = patched(large, end(large) - 20 - 56 + 40, u64(2 ** 40));
  const source = counted(memorySource(bytes));
  await failsWith('zip-mismatch', () => readZipDirectory(source));
  assert.ok(source.count.bytes < 1000, `${source.count.bytes} bytes`);
});

test('a field of ffffffff without a zip64 field means what it says', async () => {
  const entry = Buffer.from(two).indexOf('PK\x01\x02');
  const error = await failsWith('zip-truncated', () =>
    readZipDirectory(memorySource(patched(two, entry + 20, u32(0xffffffff)))),
  );
  assert.is((error as FormatError).offset, entry + 20);
});

test('the end of an archive is known from its last bytes', async () => {
  assert.is(await endsLikeZip(memorySource(zipOf([a], { before: 'x' }))), true);
  assert.is(await endsLikeZip(memorySource(bytesOf('PK'))), false);
  assert.is(await endsLikeZip(memorySource(new Uint8Array(100))), false);
});

test.run();
