/** Seeded randomness that prints its seed, so that a test that fails can fail again: CAMBIUM_SEED=… repeats it. */
export function randomOf(name: string, seed = Number(process.env.CAMBIUM_SEED ?? 20_261_123)): () => number {
  console.log(`${name}: seed ${seed}`);
  let state = seed >>> 0;
  // Mulberry32: 32 bits of state are plenty for test data.
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
