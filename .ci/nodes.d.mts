export const MAJORS: readonly string[];
export function nodeOf(major: string): string;
