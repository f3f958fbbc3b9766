/** The door for browsers: what every host has, over `fetch` and Blobs. */
export { blobSource } from './browser/blob-source.ts';
export { Client } from './client/client.ts';
export * from './common.ts';
