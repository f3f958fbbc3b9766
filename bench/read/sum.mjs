// The work that every contender in JavaScript does with the elements: their sum in binary64, eight at a time.

/** Adds float32 elements to eight sums; a block that is no multiple of eight comes last. */
export function addElements(x, sums) {
  let [a, b, c, d, e, f, g, h] = sums;
  const end = x.length - (x.length % 8);
  for (let i = 0; i < end; i += 8) {
    a += x[i];
    b += x[i + 1];
    c += x[i + 2];
    d += x[i + 3];
    e += x[i + 4];
    f += x[i + 5];
    g += x[i + 6];
    h += x[i + 7];
  }
  for (let i = end; i < x.length; i++) a += x[i];
  sums.set([a, b, c, d, e, f, g, h]);
}

/** The total of eight sums. */
export const total = (sums) => sums.reduce((sum, part) => sum + part, 0);
