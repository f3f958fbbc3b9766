export interface Timeouts {
  /**
   * From the end of the request to the first byte of the answer, connecting included (fetch does not tell when it is
   * connected), in milliseconds. Default 30,000.
   */
  readonly responseMs?: number | undefined;
  /** Silence in the middle of a body, in either direction, in milliseconds. Default 60,000. */
  readonly idleMs?: number | undefined;
}

/** Throws RangeError. */
export function completeTimeouts(
  timeouts: Timeouts | undefined,
  defaults: { readonly responseMs: number; readonly idleMs: number } = {
    responseMs: 30_000,
    idleMs: 60_000,
  },
): { readonly responseMs: number; readonly idleMs: number } {
  const { responseMs = defaults.responseMs, idleMs = defaults.idleMs } = timeouts ?? {};
  for (const [name, value] of Object.entries({ responseMs, idleMs })) {
    if (!(value > 0)) throw new RangeError(`timeouts.${name} must be above zero, is ${value}`);
  }
  return { responseMs, idleMs };
}
