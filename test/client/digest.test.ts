import { createHash } from 'node:crypto';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { digestOf, digestOfBytes, readReprDigest, writeReprDigest } from '../../src/client/digest.ts';
import type { FileAccess } from '../../src/client/file-access.ts';
import { readAll, readBlocks } from '../../src/client/source-bytes.ts';
import { type ByteSource, memorySource } from '../../src/tensor/bytes.ts';
import { sameBytes } from '../helpers/bytes.ts';
import { failsWith } from '../helpers/errors.ts';
import { reprDigestOf, sha256Of } from '../helpers/leaf-server.ts';

const BLOCK = 256 << 10;

/** Only what digesting needs. */
const files = {
  sha256() {
    const hash = createHash('sha256');
    return { update: (bytes: Uint8Array) => void hash.update(bytes), digest: () => hash.digest('hex') };
  },
} as unknown as FileAccess;

function bytesOf(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 31) ^ (i >> 8));
}

for (const length of [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK]) {
  test(`${length} bytes: blocks, digest by block and of the whole`, async () => {
    const bytes = bytesOf(length);
    const blocks: Uint8Array[] = [];
    for await (const block of readBlocks(memorySource(bytes))) {
      assert.ok(block.byteLength > 0 && block.byteLength <= BLOCK);
      assert.ok(block.buffer !== bytes.buffer, 'a block is lent out, it must not be a view');
      blocks.push(block);
    }
    sameBytes(Buffer.concat(blocks), bytes);
    sameBytes(await readAll(memorySource(bytes)), bytes);
    assert.is(await digestOf(memorySource(bytes), files), sha256Of(bytes));
    assert.is(await digestOfBytes(bytes), sha256Of(bytes));
  });
}

test('a source that ends early is noticed', async () => {
  const shrunk: ByteSource = { ...memorySource(bytesOf(BLOCK + 10)), byteLength: BLOCK + 11 };
  const error = await failsWith('unavailable-source', () => digestOf(shrunk, files));
  assert.match(error.message, new RegExp(`ends at ${BLOCK + 10}`));
});

test('digesting ends by its signal', async () => {
  const digesting = digestOf(memorySource(bytesOf(10)), files, AbortSignal.abort('enough'));
  assert.is(await digesting.catch((reason: unknown) => reason), 'enough');
});

test('Repr-Digest is written as the standard says and read back', () => {
  // The example of RFC 9530 for {"hello": "world"} and a line end.
  const bytes = Buffer.from('{"hello": "world"}\n');
  assert.is(writeReprDigest(sha256Of(bytes)), 'sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:');
  assert.is(writeReprDigest(sha256Of(bytes)), reprDigestOf(bytes));
  assert.is(readReprDigest(writeReprDigest(sha256Of(bytes))), sha256Of(bytes));
});

const HEADERS: readonly [header: string | null, isRead: boolean][] = [
  [null, false],
  ['', false],
  ['sha-512=:AAAA:', false],
  ['sha-256=RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=', false],
  ['sha-256=:RK/0:', false],
  ['xsha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:', false],
  ['sha-512=:AAAA:, sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:', true],
  ['sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:,md5=:AAAA:', true],
];

test('other headers and lists of several', () => {
  for (const [header, isRead] of HEADERS) {
    assert.is(readReprDigest(header) !== undefined, isRead, String(header));
  }
});

test.run();
