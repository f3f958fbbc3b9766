import { type CoreName, compileCoreBy } from '../core/core.ts';

/** Addresses of the files `core.wasm` and `strategies.wasm`, as the package has them. */
export interface CoreUrls {
  readonly core?: string | undefined;
  readonly strategies?: string | undefined;
}

/**
 * Compiles the core's modules from addresses while they arrive, where the server gives them the type `application/wasm`.
 * Where it does not, or has no such file, the bytes inside this library are taken, as without this call.
 */
export function streamCore(urls: CoreUrls): void {
  compileCoreBy(async (name: CoreName) => {
    const url = urls[name];
    return url === undefined ? null : compileFrom(url).catch(() => null);
  });
}

async function compileFrom(url: string): Promise<WebAssembly.Module | null> {
  const response = await fetch(url);
  const type = response.headers.get('content-type') ?? '';
  if (response.ok && /^application\/wasm\b/i.test(type)) return WebAssembly.compileStreaming(response);
  await response.body?.cancel();
  return null;
}
