/**
 * Seeded randomness, so that a demo with the same seed shares out the same digits and starts from the same weights.
 * Sixteen bytes of state, Chris Doty-Humphrey's "small fast counter" generator. Not for secrets.
 */
export class Random {
  #a = 0;
  #b: number;
  #c: number;
  #counter = 1;

  /** @param stream tells generators of one seed apart: two leaves, two purposes */
  constructor(seed: number, stream = 0) {
    this.#b = seed | 0;
    this.#c = stream | 0;
    for (let i = 0; i < 12; i++) this.#next();
  }

  /** A number in (0, 1), never 0, so that its logarithm is finite. */
  number(): number {
    return (this.#next() + 0.5) / 2 ** 32;
  }

  /** An integer in [0, n). */
  below(n: number): number {
    return Math.floor(this.number() * n);
  }

  /** Shuffles in place and hands the array back. */
  shuffle<T extends { [index: number]: number; readonly length: number }>(array: T): T {
    for (let i = array.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const held = array[i]!;
      array[i] = array[j]!;
      array[j] = held;
    }
    return array;
  }

  /** `n` shares that add up to 1, all mixtures equally likely (a flat Dirichlet distribution). */
  mixture(n: number): number[] {
    const parts = Array.from({ length: n }, () => -Math.log(this.number()));
    const sum = parts.reduce((total, part) => total + part, 0);
    return parts.map((part) => part / sum);
  }

  #next(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    this.#c |= 0;
    return sum >>> 0;
  }
}
