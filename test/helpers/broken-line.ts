import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { encodeUpdate } from '../../src/client/weights.ts';
import { Client } from '../../src/node/client.ts';
import { startJobs } from '../../src/node/workers.ts';
import { tensorOf } from '../../src/tensor/tensor.ts';
import { paths, type RoundBody } from '../../src/wire/cambium.ts';
import { Harness } from '../server/harness.ts';
import { HastyClock } from './clock.ts';
import { FaultProxy, type Faults } from './fault-proxy.ts';
import { sha256Of } from './leaf-server.ts';
import { Random } from './random.ts';

/** What a broken line may cost for each cut, and besides: headers, answers, links asked for again. */
const PER_CUT = (1 << 20) + (16 << 10);

/** A changed byte ends a request too, but what was on its way in buffers between the two still crosses the line. */
const PER_CHANGE = 4 << 20;

/**
 * Sends an update of so many bytes to a server over a bad line, lets it be aggregated, and brings the aggregation back
 * over the same line: nothing is spoiled, counted twice or sent again beyond a block for each fault.
 */
export async function crossBrokenLine(seed: number, elements: number, faults: Faults): Promise<void> {
  const random = new Random(seed);
  const folder = await mkdtemp(join(tmpdir(), 'cambium-line-'));
  const jobs = startJobs({ threads: 1, workerUrl: new URL('../../dist/worker.js', import.meta.url) });
  const harness = await new Harness().start({ jobs });
  const lines: FaultProxy[] = [];
  try {
    const branch = await harness.branch(2);
    const path = join(folder, 'update.npy');
    const values = Float32Array.from({ length: elements }, () => random.integer(-1000, 1000));
    const bytes = await encodeUpdate({ weighting: 1, tensors: [tensorOf(values)] });
    await writeFile(path, bytes);

    const up = await FaultProxy.start(harness.server.url, random, faults);
    lines.push(up);
    const retry = { attempts: 20 };
    const clock = new HastyClock();
    const sender = new Client({ ...branch.leaves[0]!, server: up.url }, { clock, retry });
    const receipt = await sender.fileUpload(path);
    await sender.close();
    assert.is(receipt.sha256, sha256Of(bytes));
    const changed = up.corrupted + up.swapped;
    const wasted = up.cuts * PER_CUT + changed * PER_CHANGE;
    assert.ok(
      up.up <= bytes.byteLength * 1.01 + wasted,
      `${up.up} bytes up, ${up.cuts} cuts, ${changed} chunks changed`,
    );

    const other = new Client(branch.leaves[1]!, { clock });
    await other.fileUpload(path);
    const id = await other.queue.get();
    await other.close();
    const rounds = await harness.operate<{ items: RoundBody[] }>('GET', paths.rounds(branch.id));
    const done = rounds.body.items.find(({ status }) => status === 'done');
    assert.is(done?.updates.length, 2, 'every update counts once');
    assert.is(rounds.body.items.find(({ status }) => status === 'open')?.updates.length, 0);

    // Links lead where the server says, so the line for them is the public address.
    // Changed bytes are found out at the end only, and twice in one download is an error: broken-line.test.ts.
    const { corruptOneIn: _, swapOneIn: __, ...downwards } = faults;
    const down = await FaultProxy.start(harness.server.url, random, downwards);
    lines.push(down);
    const receiver = new Client(
      { ...branch.leaves[0]!, server: down.url },
      {
        clock,
        retry,
        fetch: (input, init) =>
          fetch(
            new Request(
              String((input as Request).url ?? input).replace(harness.server.url, down.url),
              input as Request,
            ),
            init,
          ),
      },
    );
    const to = join(folder, 'model.npy');
    const download = await receiver.fileDownload(id, { to });
    await receiver.close();
    const model = await readFile(to);
    assert.is(download.sha256, sha256Of(model));
    // The mean of twice the same is the same; only the weighting in front of it differs.
    const payload = values.byteLength;
    assert.ok(
      Buffer.from(values.buffer).equals(
        model.subarray(download.layout.tensors[0]!.byteOffset!).subarray(0, payload),
      ),
    );
    assert.ok(
      down.down <= model.byteLength * 1.01 + down.cuts * PER_CUT,
      `${down.down} bytes down, ${down.cuts} cuts`,
    );
    console.log(
      `      ${bytes.byteLength} bytes up with ${up.cuts} cuts (${up.late} of them late), ${changed} chunks changed, ` +
        `${up.delayed} delayed: ${up.up} on the line; ${model.byteLength} down with ${down.cuts} cuts: ${down.down}`,
    );
    // A fault that did not happen would prove nothing.
    if (faults.cuts !== undefined)
      assert.ok(up.cuts >= faults.cuts && down.cuts >= faults.cuts, 'too few cuts');
    if (faults.lateOneIn !== undefined) assert.ok(up.late > 0, 'nothing came late');
    if (faults.corruptOneIn !== undefined) assert.ok(up.corrupted > 0, 'nothing was corrupted');
    if (faults.swapOneIn !== undefined) assert.ok(up.swapped > 0, 'nothing was swapped');
    if (faults.delayOneIn !== undefined) assert.ok(up.delayed > 0 && down.delayed > 0, 'nothing was delayed');
  } finally {
    for (const line of lines) await line.close();
    await harness.end();
    await jobs.close();
    await rm(folder, { recursive: true });
  }
}
