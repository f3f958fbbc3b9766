/*
 * Inspects and averages weight files without JavaScript: core.scalar.wasm, translated to C by wasm2c, and this.
 *
 *     weights inspect FILE            the layout of a .npy or an object array, as JSON
 *     weights mean [--propagate] OUT FILE...
 *
 * It shows how a host drives the core (assembly/README.md is the reference): windows of files go in, answers and tensor
 * records come out; blocks of K inputs go in, one block comes out. Memory is that of one block for each input, whatever
 * the length of the files. Tensors are matched by position.
 *
 * Every error is one line of JSON with the codes of the TypeScript side. Exit codes: 2 usage, 65 bad data, 69 something
 * that this program leaves out, 70 internal, 74 input and output.
 */
#define _FILE_OFFSET_BITS 64
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "abi.h" /* the numbers of assembly/abi.ts */
#include "core.h"
#include "wasm-rt-impl.h"

enum { EXIT_USAGE = 2, EXIT_DATA = 65, EXIT_LEFT_OUT = 69, EXIT_INTERNAL = 70, EXIT_IO = 74 };

enum {
  WASM_PAGE = 65536,
  SMALL_WINDOW = 256,    /* opcodes between two payloads rarely take more */
  LARGE_WINDOW = 65536,  /* where one opcode follows the other */
  BATCH = 16384,         /* tensor records that are taken at a time */
  FIRST_STATE = 1 << 20, /* arena of a walk; one that does not fit begins again with four times as much */
  LAST_STATE = 1 << 30,
  BLOCKS = 2 << 20, /* bytes of all blocks together, unless one would be smaller or larger than these */
  LEAST_BLOCK = 4096,
  MOST_BLOCK = 256 << 10,
};

typedef struct {
  double offset, length; /* bytes in the file; of TENSOR_ENCODED those of the text */
  double name_offset;
  u32 dtype, flags, dimensions, name_length;
  double *shape;
  char *name; /* NULL without one */
} tensor_t;

typedef struct {
  const char *path;
  int fd;
  double length;
  bool is_object, is_float;
  double weighting; /* of object arrays */
  u32 count;
  tensor_t *tensors;
} file_t;

static Z_core_instance_t core;
static u32 top; /* end of what is taken of the arena */

#define CALL(name, ...) Z_coreZ_##name(&core, __VA_ARGS__)

/* ---- errors ---- */

static void put_text(FILE *to, const char *text, size_t length) {
  fputc('"', to);
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c == '"' || c == '\\') fprintf(to, "\\%c", c);
    else if (c < 0x20) fprintf(to, "\\u%04x", c);
    else fputc(c, to);
  }
  fputc('"', to);
}

static void put_number(FILE *to, double x) {
  if (isnan(x)) fputs("\"NaN\"", to);
  else if (isinf(x)) fputs(x > 0 ? "\"Infinity\"" : "\"-Infinity\"", to);
  else fprintf(to, "%.17g", x);
}

/* offset and tensor are left out when they are negative. */
static _Noreturn void fail(int exit_code, const char *path, const char *code, double offset, double tensor) {
  fputs("{\"file\":", stdout);
  put_text(stdout, path, strlen(path));
  printf(",\"code\":\"%s\"", code);
  if (offset >= 0) printf(",\"offset\":%.0f", offset);
  if (tensor >= 0) printf(",\"tensor\":%.0f", tensor);
  puts("}");
  fflush(stdout);
  _exit(exit_code);
}

static const char *code_of_status(u32 status) {
  switch (status) {
    case NPY_MAGIC: return "npy-magic";
    case NPY_VERSION: return "npy-version";
    case NPY_TRUNCATED: return "npy-truncated";
    case NPY_HEADER_TOO_LARGE: return "npy-header-too-large";
    case NPY_HEADER_SYNTAX: return "npy-header-syntax";
    case NPY_HEADER_KEYS: return "npy-header-keys";
    case NPY_HEADER_VALUE: return "npy-header-value";
    case NPY_SHAPE: return "npy-shape";
    case NPY_SHAPE_OVERFLOW: return "npy-shape-overflow";
    case NPY_DTYPE_UNSUPPORTED: return "npy-dtype-unsupported";
    case NPY_DATA_TRAILING: return "npy-data-trailing";
    case PICKLE_PROTOCOL: return "pickle-protocol";
    case PICKLE_OPCODE: return "pickle-opcode";
    case PICKLE_GLOBAL: return "pickle-global";
    case PICKLE_LIMIT: return "pickle-limit";
    case PICKLE_STRUCTURE: return "pickle-structure";
    case PICKLE_MISMATCH: return "pickle-mismatch";
    case PICKLE_TRUNCATED: return "pickle-truncated";
    case WEIGHTS_FORM: return "weights-form";
    default: return "internal-status";
  }
}

static const char *code_of_mean(u32 status) {
  switch (status) {
    case MEAN_WEIGHTING_NAN: return "average-nan-weight";
    case MEAN_WEIGHTING_INFINITE: return "average-inf-weight";
    case MEAN_WEIGHTING_NEGATIVE: return "average-negative-weight";
    case MEAN_WEIGHTING_RANGE: return "average-weight-range";
    case MEAN_WEIGHTING_TOTAL: return "average-sum-overflow";
    case MEAN_DTYPE_UNSUPPORTED: return "aggregate-dtype-unsupported";
    case MEAN_NON_FINITE: return "non-finite";
    default: return "internal-status";
  }
}

/* ---- the arena ---- */

static u8 *at(u32 address) { return core.w2c_memory.data + address; }

static u32 load_u32(u32 address) {
  u32 x;
  memcpy(&x, at(address), 4);
  return x;
}

static double load_f64(u32 address) {
  double x;
  memcpy(&x, at(address), 8);
  return x;
}

static void store_u32(u32 address, u32 x) { memcpy(at(address), &x, 4); }
static void store_f64(u32 address, double x) { memcpy(at(address), &x, 8); }

/* Bytes of the arena, 16-byte aligned. The memory grows here only. */
static u32 take(double bytes) {
  double end = top + 16 * ceil(bytes / 16);
  if (end > core.w2c_memory.size) {
    double pages = ceil((end - core.w2c_memory.size) / WASM_PAGE);
    if (pages > 65536 || wasm_rt_grow_memory(&core.w2c_memory, (u32)pages) == (u32)-1)
      fail(EXIT_LEFT_OUT, "", "unavailable-memory", -1, -1);
  }
  u32 address = top;
  top = (u32)end;
  return address;
}

static void *allocate(size_t bytes) {
  void *room = malloc(bytes > 0 ? bytes : 1);
  if (room == NULL) fail(EXIT_LEFT_OUT, "", "unavailable-memory", -1, -1);
  return room;
}

/* ---- files ---- */

static void read_at(const file_t *file, double offset, u32 bytes, u32 address) {
  for (u32 done = 0; done < bytes;) {
    ssize_t n = pread(file->fd, at(address + done), bytes - done, (off_t)offset + done);
    if (n <= 0) fail(EXIT_IO, file->path, n < 0 ? "file-read" : "file-changed", offset + done, -1);
    done += (u32)n;
  }
}

/* Copies the tensor record at an address and answers the bytes that it takes. */
static u32 copy_record(u32 from, tensor_t *to) {
  to->offset = load_f64(from + TENSOR_OFFSET);
  to->length = load_f64(from + TENSOR_LENGTH);
  to->dtype = load_u32(from + TENSOR_DTYPE);
  to->flags = load_u32(from + TENSOR_FLAGS);
  to->dimensions = load_u32(from + TENSOR_DIMENSIONS);
  to->name_offset = load_f64(from + TENSOR_NAME_OFFSET);
  to->shape = allocate(8 * to->dimensions);
  memcpy(to->shape, at(from + TENSOR_SHAPE), 8 * to->dimensions);
  u32 name = load_u32(from + TENSOR_NAME);
  to->name_length = load_u32(from + TENSOR_NAME + 4);
  to->name = NULL;
  if (name != 0) {
    to->name = allocate(to->name_length);
    memcpy(to->name, at(name), to->name_length);
  }
  return TENSOR_SHAPE + 8 * to->dimensions;
}

static u32 item_size(u32 dtype) {
  switch (dtype) {
    case DTYPE_BOOL: case DTYPE_INT8: case DTYPE_UINT8: return 1;
    case DTYPE_INT16: case DTYPE_UINT16: case DTYPE_FLOAT16: case DTYPE_BFLOAT16: case DTYPE_VOID16: return 2;
    case DTYPE_INT32: case DTYPE_UINT32: case DTYPE_FLOAT32: return 4;
    case DTYPE_COMPLEX128: return 16;
    default: return 8;
  }
}

static double element_count(const tensor_t *tensor) {
  double count = 1;
  for (u32 i = 0; i < tensor->dimensions; i++) count *= tensor->shape[i];
  return count;
}

static bool is_utf8(const char *text, u32 length) {
  for (u32 i = 0; i < length;) {
    unsigned char c = (unsigned char)text[i];
    u32 more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 4;
    if (more == 4 || length - i <= more) return false;
    u32 point = more == 0 ? c : c & (0x3f >> more);
    for (u32 j = 1; j <= more; j++) {
      unsigned char d = (unsigned char)text[i + j];
      if ((d & 0xc0) != 0x80) return false;
      point = (point << 6) | (d & 0x3f);
    }
    if ((more == 2 && (point < 0x800 || (point >= 0xd800 && point < 0xe000))) ||
        (more == 3 && (point < 0x10000 || point > 0x10ffff)))
      return false;
    i += more + 1;
  }
  return true;
}

/* Names must be UTF-8 and differ; a table of hashes finds repetitions in linear time. */
static void check_names(const file_t *file) {
  u32 slots = 4;
  while (slots < 2 * file->count) slots *= 2;
  const tensor_t **table = allocate(slots * sizeof *table);
  memset(table, 0, slots * sizeof *table);
  for (u32 i = 0; i < file->count; i++) {
    const tensor_t *tensor = &file->tensors[i];
    if (tensor->name == NULL) continue;
    if (!is_utf8(tensor->name, tensor->name_length))
      fail(EXIT_DATA, file->path, "pickle-structure", tensor->name_offset, i);
    u32 hash = 2166136261u;
    for (u32 j = 0; j < tensor->name_length; j++) hash = (hash ^ (unsigned char)tensor->name[j]) * 16777619u;
    for (;; hash++) {
      const tensor_t **slot = &table[hash & (slots - 1)];
      if (*slot == NULL) {
        *slot = tensor;
        break;
      }
      if ((*slot)->name_length == tensor->name_length &&
          memcmp((*slot)->name, tensor->name, tensor->name_length) == 0)
        fail(EXIT_DATA, file->path, "weights-form", tensor->name_offset, i);
    }
  }
  free(table);
}

/* Feeds the walker windows of the pickle from `begin` on. Answers its last status, READ_DONE or READ_MEMORY. */
static u32 walk(const file_t *file, double begin, u32 state, u32 window) {
  double offset = begin, need = 1, end = begin, size = SMALL_WINDOW;
  for (;;) {
    size = offset > end || end == begin ? SMALL_WINDOW : fmin(2 * size, LARGE_WINDOW);
    double bytes = fmin(fmax(size, need), file->length - offset);
    if (bytes > LARGE_WINDOW) fail(EXIT_INTERNAL, file->path, "internal-walk", offset, -1);
    end = offset + bytes;
    read_at(file, offset, (u32)bytes, window);
    u32 status = CALL(walkPickle, state, window, (u32)bytes, offset);
    if (status == READ_DONE || status == READ_MEMORY) return status;
    offset = load_f64(state + ANSWER_OFFSET);
    need = load_f64(state + ANSWER_NEED);
    if (status != READ_NEED) fail(EXIT_DATA, file->path, code_of_status(status), offset, -1);
  }
}

static void read_object(file_t *file, const tensor_t *header) {
  if (header->dimensions != 1 || header->shape[0] != 2) fail(EXIT_DATA, file->path, "weights-form", 0, -1);
  u32 window = take(LARGE_WINDOW), records = take(BATCH), before = top, state;
  for (double bytes = FIRST_STATE;; bytes *= 4) {
    if (bytes > LAST_STATE) fail(EXIT_DATA, file->path, "pickle-limit", -1, -1);
    top = before;
    state = take(bytes);
    CALL(openPickle, state, (u32)bytes, header->offset, file->length, 0);
    if (walk(file, header->offset, state, window) == READ_DONE) break;
  }
  file->is_object = true;
  file->weighting = load_f64(state + ANSWER_VALUE);
  file->is_float = load_u32(state + ANSWER_DETAIL) == 1;
  for (u32 status = READ_MORE; status != READ_DONE;) {
    status = CALL(takeTensors, state, records, BATCH);
    u32 count = load_u32(state + ANSWER_COUNT), from = records;
    if (status != READ_DONE && status != READ_MORE)
      fail(EXIT_DATA, file->path, code_of_status(status), load_f64(state + ANSWER_OFFSET), count);
    tensor_t *tensors = realloc(file->tensors, (file->count + count + 1) * sizeof *tensors);
    if (tensors == NULL) fail(EXIT_LEFT_OUT, file->path, "unavailable-memory", -1, -1);
    file->tensors = tensors;
    for (u32 i = 0; i < count; i++) from += copy_record(from, &file->tensors[file->count++]);
  }
  check_names(file);
}

/* Opens a file and finds its layout. */
static file_t open_file(const char *path) {
  file_t file = {.path = path, .fd = open(path, O_RDONLY)};
  struct stat stat;
  if (file.fd < 0 || fstat(file.fd, &stat) != 0) fail(EXIT_IO, path, "file-read", -1, -1);
  file.length = (double)stat.st_size;
  u32 before = top, window = take(12 + MAX_NPY_HEADER);
  u32 out = take(ANSWER_BYTES + TENSOR_SHAPE + 8 * MAX_DIMENSIONS);
  double bytes = fmin(SMALL_WINDOW, file.length);
  u32 status;
  for (;;) {
    read_at(&file, 0, (u32)bytes, window);
    memset(at(out), 0, ANSWER_BYTES);
    status = CALL(readNpyHeader, window, (u32)bytes, file.length, out);
    if (status != READ_NEED) break;
    bytes = fmin(load_f64(out + ANSWER_NEED), file.length);
    if (bytes > 12 + MAX_NPY_HEADER) fail(EXIT_INTERNAL, path, "internal-walk", 0, -1);
  }
  if (status != READ_DONE) fail(EXIT_DATA, path, code_of_status(status), load_f64(out + ANSWER_OFFSET), -1);
  tensor_t header;
  copy_record(out + ANSWER_BYTES, &header);
  top = before;
  if (header.dtype == 0) {
    read_object(&file, &header);
  } else {
    double end = header.offset + header.length;
    if (file.length < end) fail(EXIT_DATA, path, "npy-data-truncated", file.length, 0);
    if (file.length > end) fail(EXIT_DATA, path, "npy-data-trailing", end, 0);
    file.count = 1;
    file.tensors = allocate(sizeof header);
    file.tensors[0] = header;
  }
  top = before;
  return file;
}

/* ---- inspect ---- */

static const char *DTYPE_NAMES[] = {
    [DTYPE_BOOL] = "bool",           [DTYPE_INT8] = "int8",         [DTYPE_UINT8] = "uint8",
    [DTYPE_INT16] = "int16",         [DTYPE_UINT16] = "uint16",     [DTYPE_INT32] = "int32",
    [DTYPE_UINT32] = "uint32",       [DTYPE_INT64] = "int64",       [DTYPE_UINT64] = "uint64",
    [DTYPE_FLOAT16] = "float16",     [DTYPE_BFLOAT16] = "bfloat16", [DTYPE_FLOAT32] = "float32",
    [DTYPE_FLOAT64] = "float64",     [DTYPE_COMPLEX64] = "complex64",
    [DTYPE_COMPLEX128] = "complex128", [DTYPE_VOID16] = "void16",
};

static void inspect(const char *path) {
  file_t file = open_file(path);
  printf("{\"format\":\"%s\",\"weighting\":", file.is_object ? "npy-object" : "npy");
  if (file.is_object) put_number(stdout, file.weighting);
  else fputs("null", stdout);
  fputs(",\"tensors\":[", stdout);
  for (u32 i = 0; i < file.count; i++) {
    const tensor_t *tensor = &file.tensors[i];
    bool is_encoded = (tensor->flags & TENSOR_ENCODED) != 0;
    fputs(i > 0 ? ",{\"name\":" : "{\"name\":", stdout);
    if (tensor->name == NULL) fputs("null", stdout);
    else put_text(stdout, tensor->name, tensor->name_length);
    printf(",\"dtype\":\"%s\",\"shape\":[", DTYPE_NAMES[tensor->dtype]);
    for (u32 j = 0; j < tensor->dimensions; j++) printf(j > 0 ? ",%.0f" : "%.0f", tensor->shape[j]);
    printf("],\"order\":\"%c\",\"byteOffset\":", tensor->flags & TENSOR_FORTRAN ? 'F' : 'C');
    if (is_encoded) printf("null,\"byteLength\":%.0f}", element_count(tensor) * item_size(tensor->dtype));
    else printf("%.0f,\"byteLength\":%.0f}", tensor->offset, tensor->length);
  }
  puts("]}");
}

/* ---- mean ---- */

/* Brings elements [first, first + count) of a tensor into the arena, little endian, in C order. */
static void read_elements(const file_t *file, const tensor_t *tensor, double first, u32 count, u32 to) {
  u32 size = item_size(tensor->dtype);
  if ((tensor->flags & TENSOR_FORTRAN) == 0 || tensor->dimensions < 2) {
    read_at(file, tensor->offset + first * size, count * size, to);
  } else {
    /* One by one: slow, and enough for the few files that have this order. */
    for (u32 i = 0; i < count; i++) {
      double rest = first + i, position = 0, stride = element_count(tensor);
      for (u32 d = tensor->dimensions; d-- > 0;) {
        stride /= tensor->shape[d];
        position += fmod(rest, tensor->shape[d]) * stride;
        rest = floor(rest / tensor->shape[d]);
      }
      read_at(file, tensor->offset + position * size, size, to + i * size);
    }
  }
  bool is_complex = tensor->dtype == DTYPE_COMPLEX64 || tensor->dtype == DTYPE_COMPLEX128;
  if ((tensor->flags & TENSOR_BIG_ENDIAN) != 0 && size > 1 && tensor->dtype != DTYPE_VOID16)
    CALL(swapBytes, to, is_complex ? 2 * count : count, is_complex ? size / 2 : size);
}

static void check_alike(const file_t *first, const file_t *other) {
  if (other->count != first->count) fail(EXIT_DATA, other->path, "average-count", -1, -1);
  for (u32 i = 0; i < first->count; i++) {
    const tensor_t *a = &first->tensors[i], *b = &other->tensors[i];
    if ((a->name == NULL) != (b->name == NULL) ||
        (a->name != NULL && (a->name_length != b->name_length || memcmp(a->name, b->name, a->name_length) != 0)))
      fail(EXIT_DATA, other->path, "average-name", -1, i);
    if (a->dtype != b->dtype) fail(EXIT_DATA, other->path, "average-dtype", -1, i);
    if (a->dimensions != b->dimensions || memcmp(a->shape, b->shape, 8 * a->dimensions) != 0)
      fail(EXIT_DATA, other->path, "average-shape", -1, i);
  }
}

/* The most memory that was resident, from Linux: getrusage counts what the parent had before this program began. */
static double peak_bytes(void) {
  double kilobytes = 0;
  char line[128];
  FILE *status = fopen("/proc/self/status", "r");
  while (status != NULL && fgets(line, sizeof line, status) != NULL)
    if (sscanf(line, "VmHWM: %lf kB", &kilobytes) == 1) break;
  if (status != NULL) fclose(status);
  return 1024 * kilobytes;
}

static FILE *output;
static const char *output_path;

static void put_bytes(u32 address, u32 bytes) {
  if (fwrite(at(address), 1, bytes, output) != bytes) fail(EXIT_IO, output_path, "file-write", -1, -1);
}

static u32 put_shape(const tensor_t *tensor) {
  u32 shape = take(8 * tensor->dimensions);
  memcpy(at(shape), tensor->shape, 8 * tensor->dimensions);
  return shape;
}

/* Folds one tensor block by block and writes it. */
static void fold(file_t **inputs, u32 k, u32 position, u32 plan, u32 table, u32 block, bool propagate) {
  const tensor_t *tensor = &inputs[0]->tensors[position];
  u32 size = item_size(tensor->dtype), room = block / size, out = load_u32(table + 4 * k);
  double count = element_count(tensor);
  for (double first = 0; first < count; first += room) {
    u32 n = (u32)fmin(room, count - first);
    for (u32 j = 0; j < k; j++)
      read_elements(inputs[j], &inputs[j]->tensors[position], first, n, load_u32(table + 4 * j));
    u32 status = CALL(mean, tensor->dtype, plan, table, n, out, propagate);
    if (status != MEAN_OK) fail(EXIT_DATA, output_path, code_of_mean(status), -1, position);
    put_bytes(out, n * size);
  }
}

static void average(const char *path, char **paths, int count, bool propagate) {
  file_t *files = allocate((size_t)count * sizeof *files);
  file_t **inputs = allocate((size_t)count * sizeof *inputs); /* those that count */
  double *weightings = allocate((size_t)count * sizeof *weightings);
  u32 k = 0;
  for (int i = 0; i < count; i++) {
    files[i] = open_file(paths[i]);
    if (files[i].is_object != files[0].is_object) fail(EXIT_DATA, paths[i], "weighting-missing", -1, -1);
    check_alike(&files[0], &files[i]);
    double weighting = files[i].is_object ? files[i].weighting : 1;
    for (u32 t = 0; t < files[i].count; t++)
      if (files[i].tensors[t].flags & TENSOR_ENCODED)
        fail(EXIT_LEFT_OUT, paths[i], "unavailable-text-elements", -1, t);
    if (weighting == 0) continue;
    weightings[k] = weighting;
    inputs[k++] = &files[i];
  }
  if (k == 0) fail(EXIT_DATA, path, "average-all-zero", -1, -1);

  u32 plan = take(CALL(meanPlanBytes, k)), given = take(8 * k);
  for (u32 j = 0; j < k; j++) store_f64(given + 8 * j, weightings[j]);
  u32 planned = CALL(meanPlan, given, k, plan);
  if (planned != MEAN_OK) fail(EXIT_DATA, inputs[load_u32(plan) % k]->path, code_of_mean(planned), -1, -1);
  double total = CALL(meanTotal, plan);

  u32 block = BLOCKS / (k + 1) & ~15u;
  block = block < LEAST_BLOCK ? LEAST_BLOCK : block > MOST_BLOCK ? MOST_BLOCK : block;
  u32 table = take(4 * (k + 1));
  for (u32 j = 0; j <= k; j++) store_u32(table + 4 * j, take(block + 64)); /* apart in the cache */

  const file_t *first = inputs[0];
  u32 room = take(NPY_HEADER_ROOM > PICKLE_WRITER_ROOM ? NPY_HEADER_ROOM : PICKLE_WRITER_ROOM);
  output_path = path;
  output = fopen(path, "wb");
  if (output == NULL) fail(EXIT_IO, path, "file-write", -1, -1);
  if (!first->is_object) {
    const tensor_t *tensor = &first->tensors[0];
    put_bytes(room, CALL(writeNpyHeader, room, tensor->dtype, tensor->dimensions, put_shape(tensor)));
    fold(inputs, k, 0, plan, table, block, propagate);
  } else {
    bool as_float = total != floor(total); /* a total is at most 2^53 - 1 */
    u32 state = take(PICKLE_WRITER_BYTES), protocol = 3, two = take(8);
    for (u32 i = 0; i < first->count; i++) {
      const tensor_t *tensor = &first->tensors[i];
      if (element_count(tensor) * item_size(tensor->dtype) >= 4294967296.0) protocol = 4;
    }
    store_f64(two, 2);
    put_bytes(room, CALL(writeNpyHeader, room, 0, 1, two));
    u32 head = CALL(startPickle, state, room, first->count, total, as_float, protocol, 0);
    put_bytes(room, head);
    double position = head;
    for (u32 i = 0; i < first->count; i++) {
      const tensor_t *tensor = &first->tensors[i];
      double bytes = element_count(tensor) * item_size(tensor->dtype);
      u32 before = top, name = 0;
      if (tensor->name != NULL) {
        name = take(tensor->name_length);
        memcpy(at(name), tensor->name, tensor->name_length);
      }
      u32 piece = take(PICKLE_WRITER_ROOM + tensor->name_length), shape = put_shape(tensor);
      u32 length = CALL(writeTensor, state, piece, tensor->dtype, tensor->dimensions, shape, bytes, name,
                        tensor->name_length, (u32)fmod(position, 4294967296.0), (u32)-1);
      put_bytes(piece, length);
      top = before;
      fold(inputs, k, i, plan, table, block, propagate);
      position += length + bytes;
    }
    put_bytes(room, CALL(endPickle, state, room));
  }
  if (fclose(output) != 0) fail(EXIT_IO, path, "file-write", -1, -1);
  fputs("{\"totalWeighting\":", stdout);
  put_number(stdout, total);
  printf(",\"leaves\":%u,\"peakBytes\":%.0f}\n", k, peak_bytes());
}

int main(int argc, char **argv) {
  wasm_rt_init();
  Z_core_init_module();
  Z_core_instantiate(&core);
  if (wasm_rt_impl_try() != 0) fail(EXIT_INTERNAL, "", "internal-trap", -1, -1);
  if (Z_coreZ_abiVersion(&core) != ABI_VERSION) fail(EXIT_LEFT_OUT, "", "unavailable-abi", -1, -1);
  top = (Z_coreZ_arenaBase(&core) + 15) & ~15u;
  bool propagate = argc > 2 && strcmp(argv[2], "--propagate") == 0;
  int rest = propagate ? 3 : 2;
  if (argc == 3 && strcmp(argv[1], "inspect") == 0) inspect(argv[2]);
  else if (argc > rest + 1 && strcmp(argv[1], "mean") == 0)
    average(argv[rest], argv + rest + 1, argc - rest - 1, propagate);
  else {
    fputs("usage: weights inspect FILE | weights mean [--propagate] OUT FILE...\n", stderr);
    return EXIT_USAGE;
  }
  return 0;
}
