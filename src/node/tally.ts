/** Elements that are summed together; chunks begin at multiples of it. */
export const CHUNK = 4096;

/**
 * Least, largest, sum and counts of the numbers of a tensor.
 *
 *     sum of a chunk = ((s0 + s1) + s2) + s3, where s_k is the sum of its finite elements with index k mod 4
 *     sum            = of the chunks, in their order
 *
 * The shape of the sum is fixed, so its bits are the same wherever the chunks come from; four sums side by side do not
 * wait for one another.
 */
export class Tally {
  #min = Infinity;
  #max = -Infinity;
  #sum = 0;
  #finite = 0;
  #zeros = 0;
  #nan = 0;
  #infinite = 0;

  /** Adds the next chunk: CHUNK elements, fewer in the last one. */
  add(x: Float64Array): void {
    if (x.length % 4 !== 0 || !this.#addFinite(x)) this.#addAny(x);
  }

  result() {
    const isEmpty = this.#finite === 0;
    return {
      min: isEmpty ? null : this.#min,
      max: isEmpty ? null : this.#max,
      mean: isEmpty ? null : this.#sum / this.#finite,
      zeros: this.#zeros,
      nan: this.#nan,
      infinite: this.#infinite,
    };
  }

  /** Adds a chunk of finite elements, a multiple of four; false, and nothing done, where its sum is not finite. */
  #addFinite(x: Float64Array): boolean {
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    let min = this.#min;
    let max = this.#max;
    let zeros = 0;
    for (let i = 0; i < x.length; i += 4) {
      const x0 = x[i]!;
      const x1 = x[i + 1]!;
      const x2 = x[i + 2]!;
      const x3 = x[i + 3]!;
      s0 += x0;
      s1 += x1;
      s2 += x2;
      s3 += x3;
      if (x0 < min) min = x0;
      if (x1 < min) min = x1;
      if (x2 < min) min = x2;
      if (x3 < min) min = x3;
      if (x0 > max) max = x0;
      if (x1 > max) max = x1;
      if (x2 > max) max = x2;
      if (x3 > max) max = x3;
      if (x0 === 0) zeros++;
      if (x1 === 0) zeros++;
      if (x2 === 0) zeros++;
      if (x3 === 0) zeros++;
    }
    const sum = s0 + s1 + s2 + s3;
    if (!Number.isFinite(sum)) return false;
    this.#min = min;
    this.#max = max;
    this.#sum += sum;
    this.#finite += x.length;
    this.#zeros += zeros;
    return true;
  }

  #addAny(x: Float64Array): void {
    const sums = new Float64Array(4);
    for (let i = 0; i < x.length; i++) {
      const value = x[i]!;
      if (Number.isFinite(value)) {
        sums[i & 3]! += value;
        this.#finite++;
        if (value < this.#min) this.#min = value;
        if (value > this.#max) this.#max = value;
        if (value === 0) this.#zeros++;
      } else if (Number.isNaN(value)) this.#nan++;
      else this.#infinite++;
    }
    this.#sum += sums[0]! + sums[1]! + sums[2]! + sums[3]!;
  }
}
