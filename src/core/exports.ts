/**
 * The exports of the core's modules, as `assembly/index.ts` and `assembly/strategies.ts` list them. Addresses and counts
 * are unsigned 32-bit numbers that arrive as signed ones above 2^31: pass results that are addresses through `>>> 0`.
 */

/** What both modules have: themselves, elements, and the exact mean. */
export interface FoldExports {
  readonly memory: WebAssembly.Memory;
  /** ABI_VERSION of the module. */
  abiVersion(): number;
  /** First address that the module itself does not use. */
  arenaBase(): number;

  /** Bytes of a plan for k inputs. */
  meanPlanBytes(k: number): number;
  /** Prepares k weightings (binary64 at `weightings`) as a plan at `plan`, both 16-byte aligned; a MEAN_ status. */
  meanPlan(weightings: number, k: number, plan: number): number;
  /** Nearest binary64 of the exact sum of the weightings of a plan. */
  meanTotal(plan: number): number;
  /**
   * Folds n elements: `inputs` is the address of k addresses (uint32) of blocks with any alignment, `out` overlaps none
   * of them. A MEAN_ status.
   */
  mean(dtype: number, plan: number, inputs: number, n: number, out: number, propagate: boolean): number;

  /** Index of the first NaN or infinity at or after `from`, -1 when there is none. */
  findNonFinite(dtype: number, address: number, n: number, from: number): number;
  /** Reverses the bytes of n items of `size` (2, 4 or 8) bytes in place. */
  swapBytes(address: number, n: number, size: number): void;
}

/** The second module: aggregation rules beyond the mean. */
export interface StrategyExports extends FoldExports {
  /** Begins a record of statistics. */
  startStatistics(record: number): void;
  /** Adds n numbers, whole chunks or the last ones, to a record; 0 for a dtype of no numbers. */
  addStatistics(dtype: number, from: number, n: number, record: number): number;

  // Measures of n elements of k inputs: `inputs` is the address of k addresses (uint32) of blocks that begin at the border
  // of a chunk, `out` takes binary64 sums chunk by chunk. False for an unknown dtype.

  /** Squared norms: k sums a chunk. */
  squaredNorms(dtype: number, inputs: number, k: number, n: number, out: number): number;
  /** Squared norms of the differences to the block at `model`: k sums a chunk. */
  squaredDifferences(dtype: number, inputs: number, k: number, n: number, model: number, out: number): number;
  /** Squared distances to the mean by k weightings (binary64, 8-byte aligned): k sums a chunk. */
  squaredToCentre(
    dtype: number,
    inputs: number,
    k: number,
    n: number,
    weightings: number,
    out: number,
  ): number;
  /** Squared distances of all pairs, (0,1) (0,2) … (1,2) …: k(k - 1)/2 sums a chunk. */
  pairwiseDistances(dtype: number, inputs: number, k: number, n: number, out: number): number;

  /** Bytes of a plan of `trimmed` for k inputs. */
  trimmedPlanBytes(k: number): number;
  /** Prepares a plan, 16-byte aligned, that leaves out `cut` of k inputs at each end. */
  trimmedPlan(k: number, cut: number, plan: number): void;
  /** The mean of what is left of n elements; arguments and statuses as those of `mean`. */
  trimmed(dtype: number, plan: number, inputs: number, n: number, out: number, propagate: boolean): number;

  /** Bytes of a plan of `weightedMedian` for k inputs. */
  weightedMedianPlanBytes(k: number): number;
  /** Prepares k weightings as a plan, arguments and statuses as those of `meanPlan`. */
  weightedMedianPlan(weightings: number, k: number, plan: number): number;
  /** The weighted median of n elements; arguments and statuses as those of `mean`. */
  weightedMedian(
    dtype: number,
    plan: number,
    inputs: number,
    n: number,
    out: number,
    propagate: boolean,
  ): number;

  /**
   * Takes a step (a STEP_ rule) of n elements from the model x towards the average a: `a`, `m` and `v` are overwritten.
   * False when a result is NaN or infinite.
   */
  step(
    rule: number,
    dtype: number,
    parameters: number,
    a: number,
    x: number,
    m: number,
    v: number,
    n: number,
  ): number;
  /** Encodes n float32 as int8 codes with a scale and a zero point a block. False for NaN or infinity. */
  quantise(x: number, n: number, block: number, codes: number, scales: number, zeros: number): number;
  /** Takes n float32 into an extent (two float32, zeros to begin with). False for NaN or infinity. */
  extend(x: number, n: number, extent: number): number;
  /** Gives the scale and the zero point of an extent. */
  scaleOf(extent: number, scale: number, zero: number): void;
  /** Encodes n float32 with one scale and one zero point. */
  quantiseBy(x: number, n: number, scale: number, zero: number, codes: number): void;
  /** Decodes n elements from the one at `start` on. */
  dequantise(
    codes: number,
    scales: number,
    zeros: number,
    block: number,
    start: number,
    n: number,
    out: number,
  ): void;
  /** g += μ·(x - global) for n elements. False when a result is NaN or infinite. */
  proximal(dtype: number, mu: number, g: number, x: number, global: number, n: number): number;

  /** Adds x to a, or takes it away. False when a result is NaN or infinite. */
  addTo(dtype: number, a: number, x: number, n: number, subtract: boolean): number;
  /** Rounds n float32 to float16 or bfloat16. False when a result is NaN or infinite. */
  narrow(dtype: number, x: number, n: number, out: number): number;
  /** Gives n float16 or bfloat16 as float32. */
  widenHalves(dtype: number, x: number, n: number, out: number): void;
  /** Counts n float32 by the upper bits of their magnitudes. False for NaN or infinity. */
  countUpper(x: number, n: number, bins: number): number;
  /** Counts those with these upper bits by the lower ones. */
  countLower(x: number, n: number, upper: number, bins: number): void;
  /** Takes the elements above a magnitude and the first of those that tie with it. How many. */
  takeTop(
    x: number,
    n: number,
    threshold: number,
    ties: number,
    first: number,
    indices: number,
    values: number,
  ): number;
  /** Of n elements from `start` on writes those at k indices. */
  placeTop(indices: number, values: number, k: number, start: number, n: number, out: number): void;

  /** Elements (not complex) as binary64: n numbers, of a 64-bit integer 2n. Room for three numbers more. */
  partialTerms(dtype: number, from: number, n: number, to: number): void;
  /** Sums k inputs of PARTIAL_INPUT_BYTES each. Bytes of residues, or the negative of a PARTIAL_ status. */
  partialFold(
    inputs: number,
    k: number,
    n: number,
    bits: number,
    limit: number,
    leaves: number,
    out: number,
    block: number,
    propagate: boolean,
  ): number;
  /** The element that the last refusal of partialFold or partialFinish is about. */
  partialPlace(): number;
  /** Prepares a total weighting: six uint32 at `total` in units of 2^-116. */
  partialTotal(total: number): void;
  /** Divides n sums into elements of a dtype (not complex). 0, or the negative of a PARTIAL_ status. */
  partialFinish(
    dtype: number,
    total: number,
    sums: number,
    block: number,
    n: number,
    out: number,
    propagate: boolean,
  ): number;
  /** The position of the first wrong byte of a block of residues, -1 when it may be used. */
  checkResidues(block: number, bytes: number, n: number, leaves: number): number;
}

/** The first module: codecs and the mean. */
export interface CoreExports extends FoldExports {
  /** Reads the header of a .npy file; `out` takes an answer and a tensor record. A READ_ or NPY_ status. */
  readNpyHeader(bytes: number, length: number, fileLength: number, out: number): number;
  /** Writes the header of a .npy file; `shape` is binary64 each, dtype 0 an object array. The bytes written. */
  writeNpyHeader(out: number, dtype: number, dimensions: number, shape: number): number;

  /** Prepares the walk over a pickle at `begin` in an arena of `bytes` bytes, 16-byte aligned. */
  openPickle(state: number, bytes: number, begin: number, fileLength: number, torch: boolean): void;
  /** Walks on through a window of the file that begins at `offset`. A status; the answer stands at `state`. */
  walkPickle(state: number, window: number, length: number, offset: number): number;
  /** Hands out tensor records, ANSWER_COUNT of them. A status. */
  takeTensors(state: number, out: number, bytes: number): number;

  /** Writes the begin of the pickle of a weight file. The bytes written. */
  startPickle(
    state: number,
    to: number,
    count: number,
    weighting: number,
    asFloat: boolean,
    protocol: number,
    aligned: boolean,
  ): number;
  /** Writes what stands before the payload of the next tensor. The bytes written. */
  writeTensor(
    state: number,
    to: number,
    dtype: number,
    dimensions: number,
    shape: number,
    bytes: number,
    name: number,
    nameLength: number,
    offset: number,
    only: number,
  ): number;
  /** Writes what follows the last payload. The bytes written. */
  endPickle(state: number, to: number): number;
}
