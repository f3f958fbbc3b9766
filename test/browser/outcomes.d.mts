import type { readTensors } from '../../src/formats/read.ts';
import type { ByteSource } from '../../src/tensor/bytes.ts';

export function sha256(bytes: ArrayBuffer | Uint8Array): Promise<string>;
export function failure(error: unknown): { readonly name: string; readonly code: string };
export function outcomeOf(door: { readTensors: typeof readTensors }, source: ByteSource): Promise<object>;
