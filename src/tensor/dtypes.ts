import {
  DTYPE_BFLOAT16,
  DTYPE_BOOL,
  DTYPE_COMPLEX64,
  DTYPE_COMPLEX128,
  DTYPE_FLOAT16,
  DTYPE_FLOAT32,
  DTYPE_FLOAT64,
  DTYPE_INT8,
  DTYPE_INT16,
  DTYPE_INT32,
  DTYPE_INT64,
  DTYPE_UINT8,
  DTYPE_UINT16,
  DTYPE_UINT32,
  DTYPE_UINT64,
  DTYPE_VOID16,
} from '../../assembly/abi.ts';

interface DTypeInfo {
  /** The number by which the core knows the type. */
  readonly code: number;
  /** Bytes of one element. */
  readonly size: number;
}

/** Element types by NumPy's names; `bfloat16` and `void16` (an anonymous two-byte element) besides. */
export const DTYPES = {
  bool: { code: DTYPE_BOOL, size: 1 },
  int8: { code: DTYPE_INT8, size: 1 },
  uint8: { code: DTYPE_UINT8, size: 1 },
  int16: { code: DTYPE_INT16, size: 2 },
  uint16: { code: DTYPE_UINT16, size: 2 },
  int32: { code: DTYPE_INT32, size: 4 },
  uint32: { code: DTYPE_UINT32, size: 4 },
  int64: { code: DTYPE_INT64, size: 8 },
  uint64: { code: DTYPE_UINT64, size: 8 },
  float16: { code: DTYPE_FLOAT16, size: 2 },
  bfloat16: { code: DTYPE_BFLOAT16, size: 2 },
  float32: { code: DTYPE_FLOAT32, size: 4 },
  float64: { code: DTYPE_FLOAT64, size: 8 },
  complex64: { code: DTYPE_COMPLEX64, size: 8 },
  complex128: { code: DTYPE_COMPLEX128, size: 16 },
  void16: { code: DTYPE_VOID16, size: 2 },
} as const satisfies Record<string, DTypeInfo>;

/** Name of an element type. */
export type DType = keyof typeof DTYPES;

const BY_CODE: readonly (DType | undefined)[] = Object.entries(DTYPES).reduce<DType[]>(
  (table, [name, { code }]) => {
    table[code] = name as DType; // the keys of DTYPES are its names
    return table;
  },
  [],
);

/** The element type of a code of the core. */
export function dtypeOfCode(code: number): DType {
  const dtype = BY_CODE[code];
  if (dtype === undefined) throw new RangeError(`no element type has the code ${code}`);
  return dtype;
}

/** Bytes of one element. */
export function itemSize(dtype: DType): number {
  return DTYPES[dtype].size;
}

/** Bytes of one number: half of a complex element, which is two. */
export function numberSize(dtype: DType): number {
  return dtype.startsWith('complex') ? itemSize(dtype) / 2 : itemSize(dtype);
}
