/** A file of the built package that runs in a thread of its own; every entry and every chunk finds it from its own place. */
export function builtFile(from: string, name: string): URL {
  return new URL(from.includes('/chunks/') ? `../${name}` : `./${name}`, from);
}
