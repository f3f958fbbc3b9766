import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Keeps count of what each connection is doing, so that a server that closes hangs up at once on those that do nothing,
 * also on those that have never asked anything, and waits for the others only.
 */
export class Sockets {
  /** Requests that are under way on each connection. */
  readonly #requests = new Map<Socket, number>();
  /** Everything that is connected, also what is still shaking hands. */
  readonly #connected = new Set<Socket>();
  #isClosing = false;

  /** Watches a server; a host name with several addresses has several. */
  watch(server: Server, isTls: boolean): void {
    server.on('connection', (socket: Socket) => {
      this.#connected.add(socket);
      socket.once('close', () => this.#connected.delete(socket));
    });
    server.on(isTls ? 'secureConnection' : 'connection', (socket: Socket) => {
      this.#requests.set(socket, 0);
      socket.once('close', () => this.#requests.delete(socket));
    });
    server.on('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
      this.#count(socket, 1);
      response.once('close', () => {
        if (this.#count(socket, -1) === 0 && this.#isClosing) socket.destroySoon();
      });
    });
  }

  /** Ends the connections that do nothing now, and each other one when it has its answer. */
  hangUp(): void {
    this.#isClosing = true;
    for (const [socket, count] of this.#requests) if (count === 0) socket.destroy();
  }

  /** Ends all connections. */
  cut(): void {
    for (const socket of this.#connected) socket.destroy();
  }

  #count(socket: Socket, change: 1 | -1): number | undefined {
    const count = this.#requests.get(socket);
    if (count === undefined) return undefined; // it is closed already
    this.#requests.set(socket, count + change);
    return count + change;
  }
}
