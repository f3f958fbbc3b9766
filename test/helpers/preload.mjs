// Loaded before each suite: run.mjs says where the TypeScript stands compiled, and `uvu` becomes ours (uvu.mjs).
import { register } from 'node:module';
import { isMainThread } from 'node:worker_threads';

// Workers run built files, which need none of it.
if (isMainThread) {
  process.setSourceMapsEnabled(true);
  register('./hooks.mjs', import.meta.url);
}
