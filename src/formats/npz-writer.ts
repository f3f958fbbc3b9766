import { DTYPE_FLOAT64, MAX_TENSORS } from '../../assembly/abi.ts';
import type { Core } from '../core/core.ts';
import { writeNpyHeader } from '../core/npy.ts';
import { DTYPES } from '../tensor/dtypes.ts';
import type { Encoding, WeightsSpec } from './encoding.ts';
import { isPlainName } from './zip.ts';
import { encodeZip, type NewMember } from './zip-writer.ts';

const LAYER = /^layer_(0|[1-9]\d*)$/;

/**
 * An archive as np.savez makes it, with the arrays' names: `weighting` (float64, one element) where there is one, then
 * the tensors; those without a name are `layer_0`, `layer_1`, … by their positions, as BranchKey has them.
 *
 * @throws RangeError for names that would come back as something else
 */
export function encodeNpz(core: Core, spec: WeightsSpec, lengths: readonly number[]): Encoding {
  const { weighting, tensors } = spec;
  if (tensors.length > MAX_TENSORS) {
    throw new RangeError(`a weight file holds at most ${MAX_TENSORS} tensors, not ${tensors.length}`);
  }
  const names = tensors.map(({ name }, i) => name ?? `layer_${i}`);
  checkNames(names);
  const members: NewMember[] = tensors.map(({ dtype, shape }, i) => ({
    name: `${names[i]}.npy`,
    bytes: writeNpyHeader(core, DTYPES[dtype].code, shape),
    payload: lengths[i]!,
  }));
  if (weighting !== null) {
    const header = writeNpyHeader(core, DTYPE_FLOAT64, [1]);
    const bytes = new Uint8Array(header.byteLength + 8);
    bytes.set(header);
    new DataView(bytes.buffer).setFloat64(header.byteLength, weighting, true);
    members.unshift({ name: 'weighting.npy', bytes, payload: null });
  }
  return encodeZip(members);
}

function checkNames(names: readonly string[]): void {
  const seen = new Set<string>();
  for (const name of names) {
    const label = JSON.stringify(name);
    if (name === 'weighting')
      throw new RangeError('in an .npz the name "weighting" is that of the weighting');
    if (!isPlainName(name))
      throw new RangeError(`the name ${label} cannot be that of a member of an archive`);
    if (new TextDecoder('utf-8', { ignoreBOM: true }).decode(new TextEncoder().encode(name)) !== name) {
      throw new RangeError(`the name ${label} has no UTF-8 form`);
    }
    if (seen.has(name)) throw new RangeError(`two tensors are called ${label}`);
    seen.add(name);
  }
  const misplaced = names.findIndex((name, i) => name !== `layer_${i}`);
  if (misplaced >= 0 && names.every((name) => LAYER.test(name))) {
    throw new RangeError(
      `${names[misplaced]} would be read as position ${misplaced}: layers are sorted by number`,
    );
  }
}
