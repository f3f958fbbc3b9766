/** The Web Worker: it carries out a job, or is a lane of another worker's job. `pool.ts` is the other end. */
import { LaneCaller, serveLane } from '../aggregate/distant-lanes.ts';
import type { FromLane } from '../aggregate/lane-messages.ts';
import { type LaneOrder, LocalLane } from '../aggregate/lanes.ts';
import { packError } from '../aggregate/packed-errors.ts';
import { sparingly } from '../aggregate/progress.ts';
import { crc32 } from '../formats/crc32.ts';
import type { ByteSource } from '../tensor/bytes.ts';
import { canDivide, isStreamed, openBlobHandle } from './blob-streams.ts';
import { streamCore } from './streamed-core.ts';
import { runWork } from './work.ts';
import type { FromWorker, ToWorker } from './worker-messages.ts';

const send = (message: FromWorker) => self.postMessage(message);

self.addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
  if (data.core !== undefined) streamCore(data.core);
  if (data.type === 'lane') beLane(data.port);
  else doJob(data);
});

async function doJob({ work, lanes }: ToWorker & { type: 'job' }): Promise<void> {
  const openLanes = async (order: LaneOrder) =>
    canDivide(order.sources) ? lanes.map((port) => callLane(port, order)) : [];
  try {
    const onProgress = sparingly((progress) => send({ type: 'progress', progress }));
    const value = await runWork(work, { onProgress, openLanes });
    send({ type: 'done', value });
  } catch (error) {
    send({ type: 'failed', error: packError(error) });
  } finally {
    for (const port of lanes) port.close(); // what was sent still arrives
  }
}

function callLane(port: MessagePort, order: LaneOrder) {
  const caller = new LaneCaller((message) => port.postMessage(message));
  port.onmessage = ({ data }: MessageEvent<FromLane>) => caller.hear(data);
  return { ...caller.open(order), readsAhead: isStreamed(order.sources.length) };
}

function beLane(port: MessagePort): void {
  let opened: ByteSource[] = [];
  const serve = serveLane({
    // Blocks go back with the results: a sink is written by one thread here.
    open({ plan, sources }) {
      opened = sources.map((handle) => openBlobHandle(handle, sources.length));
      return new LocalLane(plan, opened, crc32, null);
    },
    post(message) {
      const blocks = message.type === 'done' ? (message.value?.blocks ?? []) : [];
      port.postMessage(
        message,
        blocks.map(({ buffer }) => buffer as ArrayBuffer), // copies out of the arena: LocalLane
      );
    },
    closed() {
      for (const source of opened) source.close();
      port.close();
    },
  });
  port.onmessage = ({ data }) => serve(data);
}
