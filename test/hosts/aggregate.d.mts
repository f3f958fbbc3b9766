import type * as edge from '../../src/edge.ts';

interface Work {
  /** Weight files with the ids of their leaves. */
  readonly inputs: readonly { readonly name: string; readonly bytes: Uint8Array }[];
  readonly nonFinite?: 'reject' | 'propagate' | undefined;
  readonly strategy?: { readonly name: string; readonly parameters?: Readonly<Record<string, number>> };
}

export function aggregate(door: typeof edge, work: Work): Promise<Uint8Array | string>;
