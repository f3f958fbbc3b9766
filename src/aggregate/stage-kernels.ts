/** The kernels of a stage and the module they are in. Those of the second module are code of their own, loaded with it. */
import { type Core, openCore, openStrategies } from '../core/core.ts';
import type { FoldExports } from '../core/exports.ts';
import { isSimpleCombine, type Kernels, type Needs, simpleCombine } from './kernels.ts';

/** What the first module can do. */
type Simple = Needs & ({ readonly kind: 'scan' } | { readonly kind: 'fold'; readonly step: null });

function isSimple(needs: Needs): needs is Simple {
  return (
    needs.kind === 'scan' || (needs.kind === 'fold' && needs.step === null && isSimpleCombine(needs.combine))
  );
}

/**
 * A core of the module that has the kernels of a stage.
 *
 * @param decodes whether elements are decoded as they are read
 */
export function openKernelCore(
  needs: Needs,
  arenaBytes: number,
  decodes = false,
): Promise<Core<FoldExports>> {
  return !decodes && isSimple(needs) ? openCore(arenaBytes) : openStrategies(arenaBytes);
}

/** @param weightings of the inputs that count: none of them zero */
export async function kernelsFor(needs: Needs, weightings: readonly number[]): Promise<Kernels> {
  if (!isSimple(needs)) {
    const { strategyKernels } = await import('./strategy-kernels.ts');
    return strategyKernels(needs, weightings);
  }
  const combine = needs.kind === 'fold' ? simpleCombine(needs.combine, weightings) : null;
  return {
    arenaBytes: combine?.arenaBytes ?? 0,
    open: (core) => ({ combine: combine?.open(core) ?? null, measure: null, step: null }),
  };
}
