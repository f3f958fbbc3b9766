// The export list of the second module, for aggregation rules beyond the mean: what folds, and no codecs. It is loaded when
// such a rule is used, so that whoever only averages holds the small one.

export { squaredDifferences, squaredNorms, squaredToCentre } from './distances';
export { findNonFinite, swapBytes } from './elements';
export { mean } from './mean';
export { meanPlan, meanPlanBytes, meanTotal } from './mean-plan';
export { abiVersion, arenaBase } from './module';
export { trimmed, trimmedPlan, trimmedPlanBytes } from './order-trimmed';
export { weightedMedian, weightedMedianPlan, weightedMedianPlanBytes } from './order-weighted';
export { pairwiseDistances } from './pairwise';
export { partialFold, partialPlace, partialTerms } from './partial';
export { checkResidues } from './partial-block';
export { partialFinish, partialTotal } from './partial-finish';
export { dequantise, extend, quantise, quantiseBy, scaleOf } from './quantise';
export { addStatistics, startStatistics } from './statistics';
export { proximal, step } from './step';
export { addTo, countLower, countUpper, narrow, placeTop, takeTop, widenHalves } from './updates';
