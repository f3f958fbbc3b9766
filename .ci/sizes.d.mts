interface Door {
  readonly file: string;
  readonly atOnce: number;
  readonly inAll: number;
}

interface Page {
  readonly name: string;
  readonly imports: readonly string[];
  readonly loads: readonly string[];
  readonly budget: number;
}

export const MODULES: readonly { readonly file: string; readonly budget: number }[];
export const DOORS: readonly Door[];
export const PAGES: readonly Page[];
export function weighDoor(door: Door): {
  readonly files: ReadonlyMap<string, string>;
  readonly atOnce: number;
  readonly inAll: number;
};
export function weighPage(page: Page): Promise<number>;
