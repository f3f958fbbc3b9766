/** The thread of a lane: ranges of other threads' aggregations, one at a time. `lanes.ts` is the other end. */
import { parentPort } from 'node:worker_threads';
import { LocalLane } from '../aggregate/lanes.ts';
import { type ByteSource, joinSources, type SinkHandle, type SourceHandle } from '../tensor/bytes.ts';
import { descriptorSource, writeToDescriptor } from './files.ts';
import { nodeCrc32 } from './inflate.ts';
import type { FromLane, ToLane } from './lane-messages.ts';
import { KEPT, SourcePool } from './source-pool.ts';
import { packError } from './worker-errors.ts';

const port = parentPort;
if (port === null) throw new Error('this file runs in a worker thread');

let lane: LocalLane | null = null;

// Messages are answered one behind the other: a span must not begin while another one waits for a read.
let line: Promise<void> = Promise.resolve();
port.on('message', (message: ToLane) => {
  line = line.then(() => answer(message));
});

async function answer(message: ToLane): Promise<void> {
  const { id } = message;
  try {
    const value = await carryOut(message);
    port!.postMessage({ id, type: 'done', value } satisfies FromLane); // checked above
  } catch (error) {
    port!.postMessage({ id, type: 'failed', error: packError(error) } satisfies FromLane);
  }
}

async function carryOut(message: ToLane) {
  switch (message.type) {
    case 'open': {
      const { plan, sources, sink, state } = message.order;
      const outlets = sink === null ? null : { write: writerOf(sink), writeState: writerOf(state ?? sink) };
      lane = new LocalLane(plan, sources.map(openHandle), nodeCrc32, outlets);
      return null;
    }
    case 'begin':
      await lane?.begin(message.stage);
      return null;
    case 'run':
      return (await lane?.run(message.span)) ?? null;
    case 'close':
      lane?.close();
      lane = null;
      pool.close();
      return null;
  }
}

function writerOf({ descriptor, path }: SinkHandle) {
  return (offset: number, bytes: Uint8Array) => writeToDescriptor(descriptor, path, offset, bytes);
}

/** Files that this thread opens itself. */
const pool = new SourcePool(KEPT);

/** The files of the process are those of all its threads: a descriptor is enough to read. */
function openHandle(handle: SourceHandle): ByteSource {
  if (handle.kind === 'pooled') return pool.reopen(handle.file);
  if (handle.kind === 'file') return descriptorSource(handle.descriptor, handle.name, handle.byteLength);
  const scratch = openHandle(handle.scratch);
  return joinSources(openHandle(handle.source), { ...scratch, write() {} });
}
