/** The thread of a lane: ranges of other threads' aggregations, one at a time. `lanes.ts` is the other end. */
import { parentPort } from 'node:worker_threads';
import { serveLane } from '../aggregate/distant-lanes.ts';
import { LocalLane } from '../aggregate/lanes.ts';
import { blobSource } from '../tensor/blob.ts';
import { type ByteSource, joinSources, type SinkHandle, type SourceHandle } from '../tensor/bytes.ts';
import { descriptorSource, writeToDescriptor } from './files.ts';
import { nodeCrc32 } from './inflate.ts';
import { KEPT, SourcePool } from './source-pool.ts';

const port = parentPort;
if (port === null) throw new Error('this file runs in a worker thread');

/** Files that this thread opens itself. */
const pool = new SourcePool(KEPT);

port.on(
  'message',
  serveLane({
    open({ plan, sources, sink, state }) {
      const outlets = sink === null ? null : { write: writerOf(sink), writeState: writerOf(state ?? sink) };
      return new LocalLane(plan, sources.map(openHandle), nodeCrc32, outlets);
    },
    post: (message) => port.postMessage(message),
    closed: () => pool.close(),
  }),
);

function writerOf({ descriptor, path }: SinkHandle) {
  return (offset: number, bytes: Uint8Array) => writeToDescriptor(descriptor, path, offset, bytes);
}

/** The files of the process are those of all its threads: a descriptor is enough to read. */
function openHandle(handle: SourceHandle): ByteSource {
  switch (handle.kind) {
    case 'pooled':
      return pool.reopen(handle.file);
    case 'file':
      return descriptorSource(handle.descriptor, handle.name, handle.byteLength);
    case 'blob':
      return blobSource(handle.blob, handle.name);
    case 'joined':
      return joinSources(openHandle(handle.source), openHandle(handle.scratch));
  }
}
