import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';

export type Handler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

export interface LoopbackServer {
  readonly url: string;
  /** `METHOD path` of every request, in order. */
  readonly requests: string[];
  close(): Promise<void>;
}

/** A server on a free port of the loopback interface. */
export async function serve(handler: Handler): Promise<LoopbackServer> {
  const requests: string[] = [];
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    Promise.resolve(handler(request, response)).catch((error: unknown) => {
      console.error('the test server failed:', error);
      response.destroy();
    });
  });
  // A process that stood still for seconds must not find its idle connections closed just when it uses them.
  server.keepAliveTimeout = 0;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Answers with JSON. */
export function answer(response: ServerResponse, status: number, body: unknown, headers = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}

/** Answers with an error in our shape. */
export function refuse(response: ServerResponse, status: number, code: string, headers = {}): void {
  answer(response, status, { error: `${code}!`, message: `message of ${code}`, code }, headers);
}

/** Reads a whole body. */
export async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/**
 * Below those that the system gives to whoever wants any, and above 10080, the last one that `fetch` refuses as a bad
 * port. Test processes that run at the same time begin at places of their own.
 */
let nextPort = 10_100 + 20 * (process.pid % 1000);

/**
 * Ports that nobody listens on, for servers that are told theirs. As nobody is given them by chance, a server that goes
 * down finds its own again.
 */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  for (; ports.length < count; nextPort++) if (await isFree(nextPort)) ports.push(nextPort);
  return ports;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createTcpServer().once('error', () => resolve(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}
