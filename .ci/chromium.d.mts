export function findChromium(): string | null;
export const FLAGS: readonly string[];
