/**
 * The exports of the core, as `assembly/index.ts` lists them. Addresses and counts are unsigned 32-bit numbers that
 * arrive as signed ones above 2^31: pass results that are addresses through `>>> 0`.
 */
export interface CoreExports {
  readonly memory: WebAssembly.Memory;
  /** ABI_VERSION of the module. */
  abiVersion(): number;
  /** First address that the module itself does not use. */
  arenaBase(): number;
}
