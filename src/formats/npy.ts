/**
 * `.npy`, one array.
 *
 *     93 "NUMPY"            6 bytes
 *     major, minor          1.0, 2.0 or 3.0
 *     length of the text    u16 in 1.0, u32 in 2.0 and 3.0; little endian
 *     text                  {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, blanks, line feed;
 *                           latin-1 in 1.0 and 2.0, UTF-8 in 3.0
 *     elements              C order, or Fortran order when the text says so; nothing between or behind them
 *
 * NumPy writes 1.0 unless the text is too long for it, pads so that the elements begin at a multiple of 64 (16 up to
 * 1.13), and from 1.24 on leaves room in the text for a growing dimension. Readers must rely on none of that, nor on
 * the order of the keys, nor on the quotes. The order character of a one-byte type means nothing; an array of one or
 * no dimension may be marked as Fortran order.
 *
 * `V2` is what is left of bfloat16 when ml_dtypes' arrays go through np.save; it may be any other two-byte thing too,
 * so it stays `void16` unless the caller says otherwise. A descr of `|O` means that a pickle follows: npy-object.ts.
 * np.load ignores bytes behind the elements. We refuse them, because a cut and a joined file look alike otherwise.
 */
import type { TensorRecord } from '../core/records.ts';
import { dtypeOfCode, itemSize } from '../tensor/dtypes.ts';
import type { Layout, TensorLayout } from '../tensor/layout.ts';
import { formatError } from './format-error.ts';

export interface ReadOptions {
  /** Take anonymous two-byte elements (`V2`) for bfloat16, which np.save turns into them. */
  readonly void16?: 'bfloat16' | undefined;
}

/** The layout of a plain array, from its header. */
export function npyLayout(
  record: TensorRecord,
  file: string,
  fileLength: number,
  options: ReadOptions,
): Layout {
  const end = record.byteOffset + record.byteLength;
  if (fileLength < end) {
    throw formatError('npy-data-truncated', `the file has ${fileLength} bytes, but its header means ${end}`, {
      file,
      tensor: 0,
      offset: fileLength,
    });
  }
  if (fileLength > end) {
    throw formatError('npy-data-trailing', `${fileLength - end} bytes follow the elements of the array`, {
      file,
      tensor: 0,
      offset: end,
    });
  }
  return {
    format: 'npy',
    weighting: null,
    weightingType: null,
    tensors: [tensorLayout(record, null, options)],
    byteLength: fileLength,
  };
}

/** What a record of the core means. */
export function tensorLayout(record: TensorRecord, name: string | null, options: ReadOptions): TensorLayout {
  const dtype = dtypeOfCode(record.dtype);
  return {
    name,
    dtype: dtype === 'void16' ? (options.void16 ?? dtype) : dtype,
    shape: record.shape,
    order: record.isFortran ? 'F' : 'C',
    // One byte has no order, and raw bytes have none that anybody knows.
    byteOrder: record.isBigEndian && itemSize(dtype) > 1 && dtype !== 'void16' ? 'big' : 'little',
    byteOffset: record.byteOffset,
    byteLength: record.byteLength,
  };
}
