import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Keeps count of what each connection is doing, so that a server that closes hangs up at once on those that do nothing,
 * also on those that have never asked anything, and waits for the others only.
 *
 * @param event the server's event for a connection that can carry requests
 */
export function watchSockets(server: Server, event: 'connection' | 'secureConnection'): () => void {
  const requests = new Map<Socket, number>();
  let isClosing = false;
  server.on(event, (socket: Socket) => {
    requests.set(socket, 0);
    socket.once('close', () => requests.delete(socket));
  });
  server.on('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
    requests.set(socket, (requests.get(socket) ?? 0) + 1);
    response.once('close', () => {
      const left = (requests.get(socket) ?? 1) - 1;
      if (requests.has(socket)) requests.set(socket, left);
      if (isClosing && left === 0) socket.destroySoon();
    });
  });
  return () => {
    isClosing = true;
    for (const [socket, count] of requests) if (count === 0) socket.destroy();
  };
}
