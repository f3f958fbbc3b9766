/** The OpenAPI document of Cambium's own API. */
export function describeApi(version: string): object {
  return { openapi: '3.1.0', info: { title: 'Cambium', version }, paths: {} };
}
