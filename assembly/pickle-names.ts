// The names that a pickle may import, and the tags they become. Everything else is refused where it is imported.

export const TAG_RECONSTRUCT: u32 = 1;
export const TAG_SCALAR: u32 = 2;
export const TAG_FROMBUFFER: u32 = 3;
export const TAG_NDARRAY: u32 = 4;
export const TAG_DTYPE: u32 = 5;
export const TAG_ENCODE: u32 = 6;
export const TAG_BYTES: u32 = 7;
export const TAG_BFLOAT16: u32 = 8;
export const TAG_ORDERED_DICT: u32 = 9;
export const TAG_REBUILD_TENSOR: u32 = 10;
export const TAG_REBUILD_PARAMETER: u32 = 11;
/** The tag of a storage class is this and its dtype. */
export const TAG_STORAGE: u32 = 16;

// Module, blank, name, and the tag as a character. A question mark stands for an underscore that may be there: NumPy 2 calls
// numpy.core numpy._core. The names of storages go on with "Storage". One literal each: the compiler does not join several,
// and it spends two bytes on a character.

const NUMPY_NAMES =
  'numpy.?core.multiarray _reconstruct\x01numpy.?core.multiarray scalar\x02numpy.?core.numeric _frombuffer\x03numpy ndarray\x04numpy dtype\x05_codecs encode\x06__builtin__ bytes\x07builtins bytes\x07ml_dtypes bfloat16\x08';

const TORCH_NAMES =
  'torch Float\x1ctorch._utils _rebuild_tensor_v2\x0acollections OrderedDict\x09torch Long\x18torch Half\x1atorch BFloat16\x1btorch Double\x1dtorch Bool\x11torch Char\x12torch Byte\x13torch Short\x14torch Int\x16torch ComplexFloat\x1etorch ComplexDouble\x1ftorch._utils _rebuild_parameter\x0b';

/** The tag of a name in a module, 0 when it is not there. (No text of the tables has a second blank, so a match is exact.) */
export function findTag(isTorch: bool, module: usize, moduleLength: u32, name: usize, nameLength: u32): u32 {
  const table = isTorch ? TORCH_NAMES : NUMPY_NAMES;
  const start = changetype<usize>(table);
  const end = start + (table.length << 1);
  const length = moduleLength + 1 + nameLength;
  let k: u32 = 0; // characters that agree
  let isSame = true;
  for (let p = start; p < end; p += 2) {
    const character = <u32>load<u16>(p);
    if (character < 0x20) {
      if (isSame) {
        if (character < TAG_STORAGE) {
          if (k === length) return character;
        } else if (k + 7 === length && isStorage(name + nameLength - 7)) return character;
      }
      k = 0;
      isSame = true;
    } else if (isSame) {
      const byte =
        k < moduleLength
          ? <u32>load<u8>(module + k)
          : k === moduleLength
            ? 0x20
            : k < length
              ? <u32>load<u8>(name + k - moduleLength - 1)
              : 0;
      if (character === 0x3f) {
        if (byte === 0x5f) k++;
        continue;
      }
      isSame = byte === character;
      k++;
    }
  }
  return 0;
}

/** Whether seven bytes are "Storage". */
function isStorage(bytes: usize): bool {
  return load<u32>(bytes) === 0x726f7453 && load<u32>(bytes, 3) === 0x65676172;
}
