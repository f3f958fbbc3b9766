/** The door for browsers: what every host has, over `fetch` and Blobs. */
export { Client } from './client/client.ts';
export * from './common.ts';
export { blobSource } from './tensor/blob.ts';
