// Numbers that both sides of the border share: the core (AssemblyScript) and src/core (TypeScript).
// Literals only, because two compilers read this file.

/** Version of the exports, the statuses and the record layouts. Grows with every incompatible change. */
export const ABI_VERSION = 1;

// --- dtypes: codes of element types, as stored in records -----------------------------------------------------------

export const DTYPE_BOOL = 1;
export const DTYPE_INT8 = 2;
export const DTYPE_UINT8 = 3;
export const DTYPE_INT16 = 4;
export const DTYPE_UINT16 = 5;
export const DTYPE_INT32 = 6;
export const DTYPE_UINT32 = 7;
export const DTYPE_INT64 = 8;
export const DTYPE_UINT64 = 9;
export const DTYPE_FLOAT16 = 10;
export const DTYPE_BFLOAT16 = 11;
export const DTYPE_FLOAT32 = 12;
export const DTYPE_FLOAT64 = 13;
export const DTYPE_COMPLEX64 = 14;
export const DTYPE_COMPLEX128 = 15;
/** An anonymous two-byte element: bfloat16 as NumPy leaves it. */
export const DTYPE_VOID16 = 16;

// --- mean: statuses of meanPlan and mean ----------------------------------------------------------------------------

/** Done. */
export const MEAN_OK = 0;
/** A weighting is NaN. This and the next four: the position of the weighting stands in the first word of the plan. */
export const MEAN_WEIGHTING_NAN = 1;
export const MEAN_WEIGHTING_INFINITE = 2;
export const MEAN_WEIGHTING_NEGATIVE = 3;
/** A weighting is zero or outside [2^-64, 2^53]. */
export const MEAN_WEIGHTING_RANGE = 4;
/** The exact sum of the weightings is above 2^53 - 1. */
export const MEAN_WEIGHTING_TOTAL = 5;
/** The kernel does not know the dtype. */
export const MEAN_DTYPE_UNSUPPORTED = 6;
/** NaN or infinity among the inputs, and the caller did not ask to propagate it. The result is undefined. */
export const MEAN_NON_FINITE = 7;
/** No inputs at all. */
export const MEAN_NO_INPUT = 8;
