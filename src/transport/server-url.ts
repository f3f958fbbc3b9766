/**
 * The address of a server, without slashes at its end.
 *
 * @throws TypeError when it is no http or https URL, or holds a query or credentials
 */
export function readServerUrl(server: string): string {
  const url = URL.canParse(server) ? new URL(server) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '') {
    throw new TypeError(
      `the server must be an http or https URL without query, not ${JSON.stringify(server)}`,
    );
  }
  if (url.username !== '' || url.password !== '') {
    throw new TypeError('the URL of the server must not hold credentials');
  }
  return url.href.replace(/\/+$/, '');
}
