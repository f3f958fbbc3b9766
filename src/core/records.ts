import {
  ANSWER_DETAIL,
  ANSWER_EXPECTED,
  ANSWER_NAME,
  ANSWER_NEED,
  ANSWER_OFFSET,
  ANSWER_OPCODE,
  ANSWER_TEXT,
  ANSWER_VALUE,
  TENSOR_BIG_ENDIAN,
  TENSOR_DIMENSIONS,
  TENSOR_DTYPE,
  TENSOR_ENCODED,
  TENSOR_FLAGS,
  TENSOR_FORTRAN,
  TENSOR_KEY_BYTES,
  TENSOR_LENGTH,
  TENSOR_NAME,
  TENSOR_NAME_OFFSET,
  TENSOR_OFFSET,
  TENSOR_SHAPE,
} from '../../assembly/abi.ts';
import type { Core } from './core.ts';

/** One tensor as a reader of the core tells it. */
export interface TensorRecord {
  /** Null without a name. */
  readonly name: Uint8Array | null;
  /** Absolute position of the name; nothing without one. */
  readonly nameOffset: number;
  /** DTYPE_ of abi.ts, 0 for an object array. */
  readonly dtype: number;
  readonly shape: readonly number[];
  readonly isFortran: boolean;
  readonly isBigEndian: boolean;
  /** Whether the elements stand in the file as text: the offset and the length are those of the text. */
  readonly isEncoded: boolean;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** One tensor of a torch archive: a view of a storage. All numbers are what the file says, none is checked. */
export interface ViewRecord {
  readonly name: Uint8Array;
  /** Absolute position of the name. */
  readonly nameOffset: number;
  /** DTYPE_ of abi.ts. */
  readonly dtype: number;
  readonly shape: readonly number[];
  /** Elements from one index to the next, as many as the shape has dimensions. */
  readonly strides: readonly number[];
  /** The first element, counted in elements of the storage. */
  readonly first: number;
  /** Elements of the storage. */
  readonly storageElements: number;
  /** What the storage is called. */
  readonly key: Uint8Array;
}

/** Where a reader wants to go on: with a window that begins at `offset` and has `byteLength` bytes or more. */
export interface ReadNeed {
  readonly kind: 'need';
  readonly offset: number;
  readonly byteLength: number;
}

/** Why a reader of the core refuses a file. */
export interface ReadRefusal {
  readonly kind: 'refused';
  /** NPY_, PICKLE_ or WEIGHTS_ of abi.ts. */
  readonly status: number;
  /** Absolute position of the offending byte. */
  readonly offset: number;
  /** REASON_ of abi.ts. */
  readonly reason: number;
  /** The number in question, and what it should be. Only some refusals have them. */
  readonly value: number;
  readonly expected: number;
  readonly opcode: number;
  /** The dtype, or module and name of the global in question. Copies; empty where there is none. */
  readonly text: Uint8Array;
  readonly name: Uint8Array;
}

/** Reads the tensor record at an address, and how many bytes it takes. */
export function readRecord(core: Core, address: number): { record: TensorRecord; size: number } {
  const fixed = core.view(address, TENSOR_SHAPE);
  const dimensions = fixed.getUint32(TENSOR_DIMENSIONS, true);
  const flags = fixed.getUint32(TENSOR_FLAGS, true);
  const shape = core.view(address + TENSOR_SHAPE, 8 * dimensions);
  return {
    record: {
      name: fixed.getUint32(TENSOR_NAME, true) === 0 ? null : copyOfText(core, fixed, TENSOR_NAME),
      nameOffset: fixed.getFloat64(TENSOR_NAME_OFFSET, true),
      dtype: fixed.getUint32(TENSOR_DTYPE, true),
      shape: Array.from({ length: dimensions }, (_, i) => shape.getFloat64(8 * i, true)),
      isFortran: (flags & TENSOR_FORTRAN) !== 0,
      isBigEndian: (flags & TENSOR_BIG_ENDIAN) !== 0,
      isEncoded: (flags & TENSOR_ENCODED) !== 0,
      byteOffset: fixed.getFloat64(TENSOR_OFFSET, true),
      byteLength: fixed.getFloat64(TENSOR_LENGTH, true),
    },
    size: TENSOR_SHAPE + 8 * dimensions,
  };
}

/** Reads the record of a view at an address, and how many bytes it takes. */
export function readViewRecord(core: Core, address: number): { record: ViewRecord; size: number } {
  const { record, size: stridesAt } = readRecord(core, address);
  const stridesBytes = 8 * record.shape.length;
  const strides = core.view(address + stridesAt, stridesBytes);
  const key = core.view(address + stridesAt + stridesBytes, TENSOR_KEY_BYTES);
  return {
    record: {
      name: record.name ?? new Uint8Array(),
      nameOffset: record.nameOffset,
      dtype: record.dtype,
      shape: record.shape,
      strides: record.shape.map((_, i) => strides.getFloat64(8 * i, true)),
      first: record.byteOffset,
      storageElements: record.byteLength,
      key: copyOfText(core, key, 0),
    },
    size: stridesAt + stridesBytes + TENSOR_KEY_BYTES,
  };
}

/** What READ_NEED says. */
export function readNeed(answer: DataView): ReadNeed {
  return {
    kind: 'need',
    offset: answer.getFloat64(ANSWER_OFFSET, true),
    byteLength: answer.getFloat64(ANSWER_NEED, true),
  };
}

/** What a status that refuses says. */
export function readRefusal(core: Core, answer: DataView, status: number): ReadRefusal {
  return {
    kind: 'refused',
    status,
    offset: answer.getFloat64(ANSWER_OFFSET, true),
    reason: answer.getUint32(ANSWER_DETAIL, true),
    value: answer.getFloat64(ANSWER_VALUE, true),
    expected: answer.getFloat64(ANSWER_EXPECTED, true),
    opcode: answer.getUint32(ANSWER_OPCODE, true),
    text: copyOfText(core, answer, ANSWER_TEXT),
    name: copyOfText(core, answer, ANSWER_NAME),
  };
}

function copyOfText(core: Core, view: DataView, field: number): Uint8Array {
  return core.bytes(view.getUint32(field, true), view.getUint32(field + 4, true)).slice();
}
