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
/** A weighting is NaN. This and the next three: the position of the weighting stands in the first word of the plan. */
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

// --- order statistics -------------------------------------------------------------------------------------------------

/** Most inputs of a median or trimmed mean: rows have 15 bits in comparators, whose list would take 8 MB here. */
export const ORDER_MAX_INPUTS = 32_768;

// --- steps of the global model: rules and parameters ----------------------------------------------------------------

export const STEP_RATE = 1;
export const STEP_MOMENTUM = 2;
export const STEP_ADAGRAD = 3;
export const STEP_ADAM = 4;
export const STEP_YOGI = 5;

// A record of parameters, each f64, 8-byte aligned.
/** What the difference to the average is multiplied by. */
export const STEP_SCALE = 0;
export const STEP_LEARNING_RATE = 8;
export const STEP_BETA1 = 16;
/** 1 - β1. */
export const STEP_REST1 = 24;
export const STEP_BETA2 = 32;
/** 1 - β2. */
export const STEP_REST2 = 40;
export const STEP_TAU = 48;
/** 1, or 0 where the average is one of differences to the model already. */
export const STEP_ORIGIN = 56;
export const STEP_PARAMETER_BYTES = 64;

// --- readers of headers and pickles: what readNpyHeader, walkPickle and takeTensors answer ---------------------------

/** All is read. */
export const READ_DONE = 0;
/** Call again with a window that begins at ANSWER_OFFSET and has at least ANSWER_NEED bytes. */
export const READ_NEED = 1;
/** The arena is too small: begin again with a larger one. */
export const READ_MEMORY = 2;
/** The records that fit are written: take them and call again. */
export const READ_MORE = 3;

// Refusals. The offending byte stands in ANSWER_OFFSET.
export const NPY_MAGIC = 16;
export const NPY_VERSION = 17;
export const NPY_TRUNCATED = 18;
export const NPY_HEADER_TOO_LARGE = 19;
export const NPY_HEADER_SYNTAX = 20;
export const NPY_HEADER_KEYS = 21;
export const NPY_HEADER_VALUE = 22;
export const NPY_SHAPE = 23;
export const NPY_SHAPE_OVERFLOW = 24;
export const NPY_DTYPE_UNSUPPORTED = 25;
export const NPY_DATA_TRAILING = 26;
export const PICKLE_PROTOCOL = 27;
export const PICKLE_OPCODE = 28;
export const PICKLE_GLOBAL = 29;
export const PICKLE_LIMIT = 30;
export const PICKLE_STRUCTURE = 31;
export const PICKLE_MISMATCH = 32;
export const PICKLE_TRUNCATED = 33;
export const WEIGHTS_FORM = 34;

// An answer: where things stand after a call.
/** f64: absolute offset in the file, of the window wanted or of the offending byte. */
export const ANSWER_OFFSET = 0;
/** f64: bytes wanted at least. */
export const ANSWER_NEED = 8;
/** u32 address, u32 length: the text in question (a dtype, the module of a global). */
export const ANSWER_TEXT = 16;
/** u32 address, u32 length: the name of a global. */
export const ANSWER_NAME = 24;
/** f64: the weighting; with a refusal, the number in question. */
export const ANSWER_VALUE = 32;
/** f64: with PICKLE_MISMATCH, what the number should be. */
export const ANSWER_EXPECTED = 40;
/** u32: with READ_DONE of walkPickle 1 when the weighting is stored as a float; with a refusal a REASON_. */
export const ANSWER_DETAIL = 48;
/** u32: the opcode that was refused. */
export const ANSWER_OPCODE = 52;
/** u32: records that takeTensors wrote; with its refusals the position of the tensor. */
export const ANSWER_COUNT = 56;
export const ANSWER_BYTES = 64;

// A tensor record: 8-byte aligned, TENSOR_SHAPE + 8 * dimensions bytes.
/** f64: absolute offset of the first element. */
export const TENSOR_OFFSET = 0;
/** f64: bytes of all elements; with TENSOR_ENCODED, of the text that they are. */
export const TENSOR_LENGTH = 8;
/** u32: DTYPE_, 0 for an object array. */
export const TENSOR_DTYPE = 16;
/** u32: TENSOR_FORTRAN, TENSOR_BIG_ENDIAN, TENSOR_ENCODED. */
export const TENSOR_FLAGS = 20;
/** u32: number of dimensions. */
export const TENSOR_DIMENSIONS = 24;
/** u32 address, u32 length: the name in UTF-8; address 0 without one. */
export const TENSOR_NAME = 28;
/** f64: absolute offset of the name. */
export const TENSOR_NAME_OFFSET = 40;
/** f64 each. */
export const TENSOR_SHAPE = 48;

// A tensor of a torch archive is a view of a storage. Its record has in TENSOR_OFFSET the first element and in
// TENSOR_LENGTH the elements of the storage, both counted in elements; behind the shape follow as many strides (f64
// each, in elements), then u32 address, u32 length of the storage's key. Any number may be negative.
/** Bytes behind the strides. */
export const TENSOR_KEY_BYTES = 8;

export const TENSOR_FORTRAN = 1;
export const TENSOR_BIG_ENDIAN = 2;
/** The elements stand in the file as text, each byte as the UTF-8 of the character of that number: one byte or two. */
export const TENSOR_ENCODED = 4;

/** No NumPy has arrays of more dimensions. */
export const MAX_DIMENSIONS = 64;
/** What np.load applies to files it does not trust. Writers need about 120 bytes. */
export const MAX_NPY_HEADER = 10_000;
/** More than the longest header that writeNpyHeader emits: 64 dimensions of 16 digits. */
export const NPY_HEADER_ROOM = 2_048;

// --- pickles ---------------------------------------------------------------------------------------------------------

/** Least arena of openPickle in bytes. */
export const PICKLE_STATE_BYTES = 8_192;
/** Longest text that walkPickle keeps: names of tensors, globals, dtypes. */
export const PICKLE_TEXT_LIMIT = 1_024;
/** More arrays than any model has; shared ones count each time. */
export const MAX_TENSORS = 65_536;
/** State of the pickle writer in bytes. */
export const PICKLE_WRITER_BYTES = 1_120;
/** Room for what one call of the pickle writer emits, besides the name. */
export const PICKLE_WRITER_ROOM = 2_048;

// Why a pickle or a weight file is refused, finer than the status.
/** Nothing more to say than what the opcode is. */
export const REASON_OPERANDS = 0;
export const REASON_STACK_EMPTY = 1;
export const REASON_NO_MARK = 2;
export const REASON_MEMO_MISSING = 3;
export const REASON_CYCLE = 4;
export const REASON_FRAME = 5;
export const REASON_RESULTS = 6;
export const REASON_NOT_BUILT = 7;
export const REASON_SHAPE = 8;
export const REASON_DTYPE_STATE = 9;
export const REASON_ARRAY_STATE = 10;
export const REASON_STACK = 12;
export const REASON_MARKS = 13;
export const REASON_OPCODES = 14;
export const REASON_MEMO = 15;
export const REASON_LINE = 16;
export const REASON_LENGTH = 17;
export const REASON_NESTING = 18;
export const REASON_TENSORS = 19;
export const REASON_NAME = 20;
export const REASON_OUTER = 21;
export const REASON_OUTER_SHAPE = 22;
export const REASON_WEIGHTING = 23;
export const REASON_WEIGHTING_RANGE = 24;
export const REASON_PARAMETERS = 25;
export const REASON_PARAMETER = 26;
export const REASON_OBJECT = 27;
export const REASON_STRUCTURED = 28;
export const REASON_TORCH_GLOBAL = 29;
export const REASON_TORCH_TENSOR = 30;
export const REASON_STATE_DICT = 31;
export const REASON_STATE_ENTRY = 32;

// --- reductions ------------------------------------------------------------------------------------------------------

/** Elements that are summed in one go, so ranges begin on their borders; the sums of chunks are added in their order. */
export const CHUNK = 4_096;

/** Lower bits of a magnitude in the search for the k largest; 16 are above them. */
export const TOP_FINE_BITS = 15;

// --- partial sums: statuses, records and residues --------------------------------------------------------------------

/** Done: 0 or more are bytes of residues. A refusal is answered as the negative of one of the following. */
export const PARTIAL_NON_FINITE = 1;
/** A sum that binary64 cannot hold, or a mean that the dtype cannot: no sum of elements of the dtype is like that. */
export const PARTIAL_RANGE = 2;
/** What is taken out was not in: more elements that are -0 than there are leaves. */
export const PARTIAL_MISMATCH = 3;
/** A residue that is not small beside the sum that it belongs to. */
export const PARTIAL_RESIDUE = 4;

/** Elements that have one block of residues. */
export const PARTIAL_CHUNK = 4096;
/** Most parts of one element behind the first: 2274 bits in parts of 53, and the count of zeros. */
export const PARTIAL_PARTS = 46;
/** The largest block: an array, and a list in which every element has all its parts. */
export const PARTIAL_RESIDUE_BYTES = 8 + 8 * PARTIAL_CHUNK + 10 * PARTIAL_CHUNK * PARTIAL_PARTS;

// An input of partialFold: 8-byte aligned.
/** f64: what its elements are multiplied by: a weighting, or 1 or -1 of a partial sum. */
export const PARTIAL_WEIGHT = 0;
/** f64: the leaves that it has, negative when they are taken out. */
export const PARTIAL_LEAVES = 8;
/** u32: address of its elements, binary64 and 8-byte aligned. */
export const PARTIAL_VALUES = 16;
/** u32: address of its residues, 0 for none. */
export const PARTIAL_BLOCK = 20;
/** u32: 1 for a partial sum, 0 for elements of a leaf. */
export const PARTIAL_IS_SUM = 24;
/** Behind it stands what the fold keeps itself. */
export const PARTIAL_INPUT_BYTES = 40;

/** Bytes of a prepared total. */
export const PARTIAL_TOTAL_BYTES = 128;

/** Values of float64 and complex128 are multiplied by 2^-60 in partial sums: weighted ones may be beyond binary64. */
export const PARTIAL_SCALE = 60;

// --- statistics: binary64 numbers of a record ---------------------------------------------------------------------------

/** Least finite number, infinity where there is none. */
export const STATISTICS_MIN = 0;
/** Largest finite number, minus infinity where there is none. */
export const STATISTICS_MAX = 8;
/** Sum of the finite numbers. */
export const STATISTICS_SUM = 16;
/** How many numbers are zero, NaN, infinite, and finite (zeros included). */
export const STATISTICS_ZEROS = 24;
export const STATISTICS_NAN = 32;
export const STATISTICS_INFINITE = 40;
export const STATISTICS_FINITE = 48;
