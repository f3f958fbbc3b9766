export type { RunningServer, ServerOptions } from './serve.ts';
export { startServer } from './serve.ts';
