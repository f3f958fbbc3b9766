import { pipeline, Readable } from 'node:stream';
import * as zlib from 'node:zlib';
import type { Crc32 } from '../formats/crc32.ts';
import { crc32 } from '../formats/crc32.ts';
import type { Inflate } from '../formats/inflate.ts';

/** Bytes that come out at a time: each call of zlib is a task for the pool, and few large ones cost least. */
const CHUNK = 1 << 20;

/** zlib on the threads of Node's pool: several streams are inflated at the same time. */
export const nodeInflate: Inflate = (packed) => {
  const inflater = zlib.createInflateRaw({ chunkSize: CHUNK });
  // Errors reach the reader of `inflater`, which destroys the others when it stops.
  pipeline(Readable.from(packed, { objectMode: false }), inflater, () => {});
  return inflater;
};

/** zlib's, which Node hands out from 20.15 on. */
export const nodeCrc32: Crc32 = (zlib as { crc32?: Crc32 }).crc32 ?? crc32;
