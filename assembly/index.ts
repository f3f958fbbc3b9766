// The export list of the core: what src/core may call, and nothing else.

export { findNonFinite, swapBytes } from './elements';
export { mean } from './mean';
export { meanPlan, meanPlanBytes, meanTotal } from './mean-plan';
export { abiVersion, arenaBase } from './module';
export { readNpyHeader, writeNpyHeader } from './npy';
export { openPickle, walkPickle } from './pickle';
export { takeTensors } from './pickle-tensors';
export { endPickle, startPickle, writeTensor } from './pickle-writer';
