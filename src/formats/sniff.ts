/** What the first bytes of a file say it is. Content decides, never a file's name. */
export type Sniffed = 'npy' | 'npz' | 'torch' | 'torch-legacy' | 'zip' | 'safetensors' | 'pickle' | 'unknown';

/** Bytes that `sniff` looks at. */
export const SNIFF_BYTES = 256;

/** What torch.save wrote before it used zip archives: a pickle of this number comes first. */
const TORCH_LEGACY = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20];

const NPY_MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];

/**
 * Tells containers apart.
 *
 * A damaged .npy magic, or a file that ends within it, still counts as 'npy', so that its reader can say what is wrong.
 *
 * @param head the first SNIFF_BYTES of the file, fewer when it is shorter
 */
export function sniff(head: Uint8Array, fileLength: number): Sniffed {
  const startsWith = (magic: readonly number[]) => magic.every((byte, i) => head[i] === byte);
  const alike = NPY_MAGIC.filter((byte, i) => ((head[i] ?? -1) & ~0x20) === (byte & ~0x20)).length;
  if (alike >= 5 || NPY_MAGIC.slice(0, fileLength).every((byte, i) => head[i] === byte)) return 'npy';
  if (startsWith([0x50, 0x4b, 3, 4])) return sniffZip(head);
  if (startsWith([0x50, 0x4b, 5, 6])) return 'npz'; // without members: np.savez() of nothing
  if (startsWith(TORCH_LEGACY)) return 'torch-legacy';
  if (isSafetensors(head)) return 'safetensors';
  return head[0] === 0x80 && (head[1] ?? 6) < 6 ? 'pickle' : 'unknown';
}

/** By the name of the first member: `x.npy`, or what torch puts into its one folder. */
function sniffZip(head: Uint8Array): Sniffed {
  const length = (head[26] ?? 0) | ((head[27] ?? 0) << 8);
  const name = new TextDecoder('latin1').decode(head.subarray(30, 30 + length));
  if (name.endsWith('.npy')) return 'npz';
  return /^[^/]+\/(?:data\.pkl|byteorder|version|\.format_version)$/.test(name) ? 'torch' : 'zip';
}

/**
 * Eight bytes of a length, then a JSON object with a member or none. Lengths that no header has count too, so that the
 * reader can say what is wrong; most of their bytes are 0, which text does not have.
 */
function isSafetensors(head: Uint8Array): boolean {
  const zeros = head.subarray(0, 8).filter((byte) => byte === 0).length;
  return zeros >= 4 && /^\s*\{\s*["}]/.test(new TextDecoder('latin1').decode(head.subarray(8, 72)));
}
