// The export list of the core: what src/core may call, and nothing else.

import { ABI_VERSION } from './abi';

/** Version of exports, statuses and record layouts (abi.ts). */
export function abiVersion(): u32 {
  return ABI_VERSION;
}

/** First address behind the static data of the module: from here on memory belongs to the caller. */
export function arenaBase(): usize {
  return __heap_base;
}

export { findNonFinite, swapBytes } from './elements';
export { mean } from './mean';
export { meanPlan, meanPlanBytes, meanTotal } from './mean-plan';
export { readNpyHeader, writeNpyHeader } from './npy';
export { openPickle, walkPickle } from './pickle';
export { takeTensors } from './pickle-tensors';
export { endPickle, startPickle, writeTensor } from './pickle-writer';
