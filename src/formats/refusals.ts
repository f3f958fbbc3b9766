import {
  NPY_DATA_TRAILING,
  NPY_DTYPE_UNSUPPORTED,
  NPY_HEADER_KEYS,
  NPY_HEADER_SYNTAX,
  NPY_HEADER_TOO_LARGE,
  NPY_HEADER_VALUE,
  NPY_MAGIC,
  NPY_SHAPE,
  NPY_SHAPE_OVERFLOW,
  NPY_TRUNCATED,
  NPY_VERSION,
  PICKLE_GLOBAL,
  PICKLE_LIMIT,
  PICKLE_MISMATCH,
  PICKLE_OPCODE,
  PICKLE_PROTOCOL,
  PICKLE_STRUCTURE,
  PICKLE_TRUNCATED,
  REASON_ARRAY_STATE,
  REASON_CYCLE,
  REASON_DTYPE_STATE,
  REASON_FRAME,
  REASON_LENGTH,
  REASON_LINE,
  REASON_MARKS,
  REASON_MEMO,
  REASON_MEMO_MISSING,
  REASON_NAME,
  REASON_NESTING,
  REASON_NO_MARK,
  REASON_NOT_BUILT,
  REASON_OBJECT,
  REASON_OPCODES,
  REASON_OUTER,
  REASON_OUTER_SHAPE,
  REASON_PARAMETER,
  REASON_PARAMETERS,
  REASON_RESULTS,
  REASON_SHAPE,
  REASON_STACK,
  REASON_STACK_EMPTY,
  REASON_STATE_DICT,
  REASON_STATE_ENTRY,
  REASON_STRUCTURED,
  REASON_TENSORS,
  REASON_TORCH_GLOBAL,
  REASON_TORCH_TENSOR,
  REASON_WEIGHTING,
  REASON_WEIGHTING_RANGE,
  WEIGHTS_FORM,
} from '../../assembly/abi.ts';
import type { ReadRefusal } from '../core/records.ts';
import { InternalError } from '../errors.ts';
import { opcodeName } from './opcodes.ts';

type Sentence = string | ((refusal: ReadRefusal) => string);

/** Code and sentence of each status. */
const REFUSALS: ReadonlyMap<number, readonly [code: string, sentence: Sentence]> = new Map([
  [NPY_MAGIC, ['npy-magic', 'not a .npy file: it does not begin with the bytes 93 "NUMPY"']],
  [NPY_VERSION, ['npy-version', 'an unknown version of the .npy format; 1.0, 2.0 and 3.0 are known']],
  [NPY_TRUNCATED, ['npy-truncated', 'the file ends within its .npy header']],
  [NPY_HEADER_TOO_LARGE, ['npy-header-too-large', 'the .npy header is longer than 10,000 bytes']],
  [
    NPY_HEADER_SYNTAX,
    [
      'npy-header-syntax',
      'the .npy header is not the dictionary of descr, fortran_order and shape that NumPy writes',
    ],
  ],
  [
    NPY_HEADER_KEYS,
    [
      'npy-header-keys',
      'the .npy header must have the keys descr, fortran_order and shape, each once, and no other',
    ],
  ],
  [
    NPY_HEADER_VALUE,
    [
      'npy-header-value',
      'in the .npy header, descr must be a text or a list and fortran_order True or False',
    ],
  ],
  [NPY_SHAPE, ['npy-shape', 'a shape must be a tuple of at most 64 whole numbers that are not negative']],
  [NPY_SHAPE_OVERFLOW, ['npy-shape-overflow', 'the shape means more than 2^53 - 1 bytes']],
  [NPY_DTYPE_UNSUPPORTED, ['npy-dtype-unsupported', describeUnsupported]],
  [NPY_DATA_TRAILING, ['npy-data-trailing', 'bytes follow the end of the weights']],
  [PICKLE_PROTOCOL, ['pickle-protocol', describeProtocol]],
  [
    PICKLE_OPCODE,
    ['pickle-opcode', ({ opcode }) => `the opcode ${opcodeName(opcode)} does not belong in a weight file`],
  ],
  [PICKLE_GLOBAL, ['pickle-global', describeGlobal]],
  [PICKLE_LIMIT, ['pickle-limit', describeReason]],
  [PICKLE_STRUCTURE, ['pickle-structure', describeReason]],
  [
    PICKLE_MISMATCH,
    ['pickle-mismatch', ({ value, expected }) => `${value} bytes where shape and dtype mean ${expected}`],
  ],
  [PICKLE_TRUNCATED, ['pickle-truncated', describeTruncated]],
  [WEIGHTS_FORM, ['weights-form', describeReason]],
]);

const REASONS: ReadonlyMap<number, Sentence> = new Map<number, Sentence>([
  [REASON_STACK_EMPTY, ({ opcode }) => `${opcodeName(opcode)} finds no value to work on`],
  [REASON_NO_MARK, ({ opcode }) => `${opcodeName(opcode)} without a MARK before it`],
  [REASON_MEMO_MISSING, ({ value }) => `the pickle refers to object ${value}, which it never stored`],
  [REASON_CYCLE, 'a list or array that contains itself'],
  [REASON_FRAME, 'a FRAME that lies in another one or does not end between two opcodes'],
  [REASON_RESULTS, 'the pickle leaves more than one object'],
  [REASON_NOT_BUILT, 'an array that was begun but never filled'],
  [REASON_SHAPE, 'the shape of an array is not a tuple of at most 64 whole numbers'],
  [REASON_DTYPE_STATE, 'the description of a dtype is not one that NumPy writes'],
  [REASON_ARRAY_STATE, 'the content of an array is not one that NumPy writes'],
  [REASON_STACK, 'more than 65,536 values wait on the stack'],
  [REASON_MARKS, 'more than 64 MARKs are open'],
  [REASON_OPCODES, 'more than 4,194,304 opcodes'],
  [REASON_MEMO, ({ value }) => `an object with the number ${value}; below 1,048,576 is allowed`],
  [REASON_LINE, 'a name of more than 256 bytes'],
  [REASON_LENGTH, ({ value, expected }) => `a length of ${value} bytes; at most ${expected} can be`],
  [REASON_NESTING, 'lists nested more than 16 deep'],
  [REASON_TENSORS, 'more than 65,536 arrays'],
  [REASON_NAME, 'the name of a tensor has more than 1,024 bytes'],
  [
    REASON_OUTER,
    'the file does not hold the object array [weighting, [arrays]]; write it with numpy.save(file, numpy.asarray((weighting, arrays), dtype=object))',
  ],
  [
    REASON_OUTER_SHAPE,
    'the outer array must have the shape (2,): a weighting and a list of arrays. numpy.asarray((weighting, arrays), dtype=object) makes it when the weighting is a number and arrays a list of several',
  ],
  [
    REASON_WEIGHTING,
    'the weighting must be a whole number, a float, or an array of one of them; it is something else',
  ],
  [REASON_WEIGHTING_RANGE, 'the weighting is beyond 2^53 - 1'],
  [REASON_PARAMETERS, 'the second item must be a list of arrays'],
  [REASON_PARAMETER, 'the list of parameters must hold arrays, or [name, array] pairs; this is neither'],
  [REASON_OBJECT, 'an array of Python objects where an array of numbers belongs'],
  [
    REASON_STATE_DICT,
    'the archive does not hold a state dict, a dictionary from names to tensors; torch.save(model.state_dict(), file) writes one',
  ],
  [
    REASON_STATE_ENTRY,
    'a state dict holds tensors under texts; this is something else. Of a checkpoint with more in it, save the state dict alone: torch.save(checkpoint["state_dict"], file)',
  ],
  [REASON_TORCH_TENSOR, 'a storage or tensor that is not spelled as torch writes it'],
]);

/** Code and sentence of a refusal. */
export function describeRefusal(refusal: ReadRefusal): readonly [code: string, sentence: string] {
  const known = REFUSALS.get(refusal.status);
  if (known === undefined) {
    throw new InternalError('internal-status', `the core answered the unknown status ${refusal.status}`);
  }
  const [code, sentence] = known;
  return [code, say(sentence, refusal)];
}

function say(sentence: Sentence, refusal: ReadRefusal): string {
  return typeof sentence === 'string' ? sentence : sentence(refusal);
}

function describeReason(refusal: ReadRefusal): string {
  const sentence = REASONS.get(refusal.reason);
  return sentence === undefined
    ? `${opcodeName(refusal.opcode)} with something that NumPy does not write there`
    : say(sentence, refusal);
}

function describeTruncated(refusal: ReadRefusal): string {
  return refusal.reason === REASON_LENGTH
    ? `the file ends within a payload: ${refusal.value} bytes are announced, ${refusal.expected} follow`
    : 'the file ends before its pickle does';
}

function describeProtocol(refusal: ReadRefusal): string {
  return refusal.value === 0
    ? 'no pickle of protocol 2 to 5 follows the header (protocols 0 and 1, and pickles without PROTO, are not read)'
    : `pickle protocol ${refusal.value}; 2 to 5 are read`;
}

function describeGlobal(refusal: ReadRefusal): string {
  const module = quotable(refusal.text);
  const name = `${module}.${quotable(refusal.name)}`;
  if (refusal.reason === REASON_TORCH_GLOBAL) {
    return `the pickle wants to import ${name}, which no state dict of dense tensors needs; nothing was imported. Save the weights alone: torch.save(model.state_dict(), file)`;
  }
  const cure = /^torch\b/.test(module)
    ? '. These are torch parameters: turn each into an array before saving, [p.detach().cpu().numpy() for p in model.parameters()]'
    : '';
  return `the pickle wants to import ${name}, which has no place in a weight file; nothing was imported${cure}`;
}

const KINDS: ReadonlyMap<string, string> = new Map([
  ['S', 'byte strings'],
  ['a', 'byte strings'],
  ['U', 'text'],
  ['M', 'dates'],
  ['m', 'time spans'],
  ['V', 'raw bytes or a structure'],
  ['O', 'Python objects'],
]);

function describeUnsupported(refusal: ReadRefusal): string {
  const descr = quotable(refusal.text);
  if (refusal.reason === REASON_STRUCTURED || /^[[(]/.test(descr)) {
    return 'the dtype is structured; only arrays of plain numbers are read';
  }
  const code = descr.replace(/^[<>|=]/, '');
  const kind = /^[fc](?:12|16|24|32)$/.test(code) ? 'long doubles' : KINDS.get(code.charAt(0));
  const meaning = kind === undefined ? '' : ` (${kind})`;
  return `elements of dtype "${descr}"${meaning} are not read; bool, integers of 8 to 64 bits, float16 to float64, complex64, complex128 and V2 are`;
}

/** Text of a file in a message: short, and without control characters. */
function quotable(bytes: Uint8Array): string {
  const text = new TextDecoder('latin1').decode(bytes.subarray(0, 100)).replace(/[^\x20-\x7e]/g, '?');
  return bytes.byteLength > 100 ? `${text}…` : text;
}
