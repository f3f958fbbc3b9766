/** Parameters of the rules that need some; the others have their defaults. */
export const PARAMETERS: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  'trimmed-mean': { trim: 0.2 },
  krum: { byzantine: 2 },
  'multi-krum': { byzantine: 1, select: 4 },
  'clipped-mean': { norm: 20 },
  fedavg: { learningRate: 0.7 },
  fedadagrad: { learningRate: 0.1 },
  fedadam: { learningRate: 0.1 },
  fedyogi: { learningRate: 0.1 },
};
