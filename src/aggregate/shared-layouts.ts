/**
 * Files of one kind have the same layout, or one of a few: thousands of inputs keep each of them once.
 *
 * What is kept is a copy. Were it what the reader made, the collector would learn from these first layouts that what the
 * reader makes is there to stay, and put all later ones among what stays, where it seldom looks: a thousand layouts of 113
 * tensors took 20 MB so.
 */
import type { TensorLayout } from '../tensor/layout.ts';

/** So many are remembered. Weightings of other lengths move what follows them, which makes a handful. */
const REMEMBERED = 16;

export class SharedLayouts {
  readonly #known: (readonly TensorLayout[])[] = [];

  /** Gives an equal list of tensors, the same for all that are equal; beyond what is remembered, this one. */
  share(tensors: readonly TensorLayout[]): readonly TensorLayout[] {
    const known = this.#known.find((one) => areSame(one, tensors));
    if (known !== undefined) return known;
    if (this.#known.length === REMEMBERED) return tensors;
    const kept = tensors.map((tensor) => ({ ...tensor }));
    this.#known.push(kept);
    return kept;
  }
}

function areSame(a: readonly TensorLayout[], b: readonly TensorLayout[]): boolean {
  return a.length === b.length && a.every((tensor, i) => isSame(tensor, b[i]!));
}

function isSame(a: TensorLayout, b: TensorLayout): boolean {
  return (
    a.byteOffset === b.byteOffset &&
    a.byteLength === b.byteLength &&
    a.name === b.name &&
    a.dtype === b.dtype &&
    a.order === b.order &&
    a.byteOrder === b.byteOrder &&
    a.shape.length === b.shape.length &&
    a.shape.every((dimension, axis) => dimension === b.shape[axis]) &&
    a.encoding === b.encoding &&
    // The parts of encoded tensors are as many as they are different.
    a.parts === undefined &&
    b.parts === undefined
  );
}
