import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { Random } from './random.ts';

export interface Faults {
  /** Connections are cut after a random number of bytes, so many on average; never, unless given. */
  readonly cutAfter?: number;
  /** Cuts in all; then the line is good. */
  readonly cuts?: number;
  /** At least one in so many chunks has a byte changed in its middle. Only chunks too large to be headers are. */
  readonly corruptOneIn?: number;
  /** At least one in so many chunks waits until a later turn of the event loop. */
  readonly delayOneIn?: number;
  /** Chunks are passed on in pieces of this many bytes. */
  readonly pieces?: number;
  /** Bytes that pass in a turn of the event loop, each way of a connection. */
  readonly bytesPerTurn?: number;
  /** At least one in so many chunks has its last two quarters swapped. Only chunks too large to be headers have. */
  readonly swapOneIn?: number;
  /**
   * Of the cuts on the way up at least one in so many is seen by the client alone, and what it sent last reaches the server only after
   * the first bytes of its next connection.
   */
  readonly lateOneIn?: number;
}

/** Chunks below this may be headers, where a changed byte makes another request of them. */
const BULK = 16 << 10;

/**
 * A line with faults between a client and a server, by a seeded die. It counts what the server sent and got, so that a
 * test can tell what came again.
 */
export class FaultProxy {
  up = 0;
  down = 0;
  cuts = 0;
  corrupted = 0;
  swapped = 0;
  delayed = 0;
  late = 0;
  connections = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** What still has to reach the server, of connections that the client has given up. */
  readonly #latecomers: (() => void)[] = [];
  readonly #held = { up: new Hold(), down: new Hold() };

  private constructor(target: URL, random: Random, faults: Faults) {
    const corrupts = dieOf(random, faults.corruptOneIn);
    const swaps = dieOf(random, faults.swapOneIn);
    const delays = dieOf(random, faults.delayOneIn);
    const comesLate = dieOf(random, faults.lateOneIn);
    this.#server = createServer((near) => {
      this.connections++;
      const far = connect(Number(target.port), target.hostname);
      let isLate = false;
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.on('error', () => {});
        socket.once('close', () => {
          this.#sockets.delete(socket);
          near.destroy();
          if (!isLate) far.destroy();
        });
      }
      const { cutAfter, cuts: cutsLeft = Number.POSITIVE_INFINITY } = faults;
      let left = cutAfter === undefined ? Number.POSITIVE_INFINITY : random.integer(1, 2 * cutAfter);
      const pass = (from: Socket, to: Socket, way: 'up' | 'down') => {
        from.on('data', async (chunk: Buffer) => {
          from.pause();
          await this.#held[way].pass(this[way]);
          if (to.destroyed) return;
          if (this.cuts >= cutsLeft) left = Number.POSITIVE_INFINITY;
          let bytes = chunk.subarray(0, left);
          left -= bytes.byteLength;
          this[way] += bytes.byteLength;
          if (chunk.byteLength >= BULK && corrupts()) {
            bytes[bytes.byteLength >> 1]! ^= 1 << random.integer(0, 7);
            this.corrupted++;
          }
          if (chunk.byteLength >= BULK && swaps()) {
            // A head that came together with its body stands in the first half.
            const [half, most] = [bytes.byteLength >> 1, (3 * bytes.byteLength) >> 2];
            bytes = Buffer.concat([
              bytes.subarray(0, half),
              bytes.subarray(most),
              bytes.subarray(half, most),
            ]);
            this.swapped++;
          }
          if (delays()) {
            this.delayed++;
            await turns(random.integer(1, 20));
          }
          if (left <= 0 && from === near && comesLate()) {
            this.cuts++;
            this.late++;
            isLate = true;
            near.resetAndDestroy();
            this.#latecomers.push(() => far.write(bytes, () => far.destroy()));
            return;
          }
          const size = Math.min(faults.pieces ?? bytes.byteLength, faults.bytesPerTurn ?? bytes.byteLength);
          for (let at = 0; at < bytes.byteLength && !to.destroyed; at += size) {
            const isFree = to.write(bytes.subarray(at, at + size));
            if (!isFree) await room(to);
            if (faults.bytesPerTurn !== undefined) await turns(1);
          }
          if (from === near) for (const arrive of this.#latecomers.splice(0)) arrive();
          if (left <= 0) {
            this.cuts++;
            // Half of them as a line does that breaks, half as a machine that goes down in good order.
            if (random.integer(0, 1)) near.resetAndDestroy();
            else near.destroy();
            far.resetAndDestroy();
          } else from.resume();
        });
      };
      pass(near, far, 'up');
      pass(far, near, 'down');
    });
  }

  static async start(target: string, random: Random, faults: Faults): Promise<FaultProxy> {
    const proxy = new FaultProxy(new URL(target), random, faults);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`; // it listens on a port
  }

  /**
   * Lets about so many more bytes pass that way, and then none until `release`: sockets hold megabytes, so that without it one side can
   * be done when the other is killed in the middle.
   */
  hold(way: 'up' | 'down', bytes: number): void {
    this.#held[way].limit = this[way] + bytes;
  }

  release(): void {
    for (const each of Object.values(this.#held)) each.release();
  }

  close(): Promise<void> {
    this.release();
    for (const socket of this.#sockets) socket.destroy();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

/** What keeps bytes back once a limit is reached. */
class Hold {
  limit = Number.POSITIVE_INFINITY;
  readonly #waiting: (() => void)[] = [];

  async pass(bytes: number): Promise<void> {
    if (bytes >= this.limit) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  release(): void {
    this.limit = Number.POSITIVE_INFINITY;
    for (const go of this.#waiting.splice(0)) go();
  }
}

/** Says yes at least once in so many calls, by chance when; never without a number. */
function dieOf(random: Random, oneIn: number | undefined): () => boolean {
  if (oneIn === undefined) return () => false;
  let left = random.integer(1, oneIn);
  return () => {
    if (--left > 0) return false;
    left = random.integer(1, oneIn);
    return true;
  };
}

/** Until a socket takes more, or is gone. */
function room(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      socket.off('drain', done).off('close', done);
      resolve();
    };
    socket.on('drain', done).on('close', done);
  });
}

/** Lets others go first, so many times. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}
