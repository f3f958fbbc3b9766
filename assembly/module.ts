// What every module tells about itself.

import { ABI_VERSION } from './abi';

/** Version of exports, statuses and record layouts (abi.ts). */
export function abiVersion(): u32 {
  return ABI_VERSION;
}

/** First address behind the static data of the module: from here on memory belongs to the caller. */
export function arenaBase(): usize {
  return __heap_base;
}
