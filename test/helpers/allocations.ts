/** Bytes of an ArrayBuffer that a constructor call makes; what views a buffer makes none. */
function bytesOfCall(first: unknown): number {
  if (typeof first === 'number') return first;
  return ArrayBuffer.isView(first) ? first.byteLength : 0;
}

/**
 * Runs `work` and counts what it allocates by length: `new Uint8Array(n)`, `new ArrayBuffer(n)`, and memory that the core
 * grows by; all together, and the largest. It counts what is asked for, whether or not it is touched or collected again.
 */
export async function countAllocations<T>(
  work: () => Promise<T>,
): Promise<{ result: T; bytes: number; largest: number }> {
  let bytes = 0;
  let largest = 0;
  const count = (byteLength: number) => {
    bytes += byteLength;
    largest = Math.max(largest, byteLength);
  };
  const counted = <C extends new (...args: never[]) => object>(original: C): C =>
    new Proxy(original, {
      construct(target, args, newTarget) {
        count(bytesOfCall(args[0]));
        return Reflect.construct(target, args, newTarget === proxies.get(target) ? target : newTarget);
      },
    });
  const originals = { Uint8Array, ArrayBuffer };
  const proxies = new Map<unknown, unknown>();
  const { grow } = WebAssembly.Memory.prototype;
  for (const [name, original] of Object.entries(originals)) {
    const proxy = counted(original as new (...args: never[]) => object); // only its arguments are looked at
    proxies.set(original, proxy);
    Object.assign(globalThis, { [name]: proxy });
  }
  WebAssembly.Memory.prototype.grow = function (pages) {
    count(pages * 65_536);
    return grow.call(this, pages);
  };
  try {
    return { result: await work(), bytes, largest };
  } finally {
    Object.assign(globalThis, originals);
    WebAssembly.Memory.prototype.grow = grow;
  }
}
