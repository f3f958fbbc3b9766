import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * A certificate that nobody has signed but itself, made anew for each run; undefined without openssl.
 *
 * @param address the only one that it is for
 * @param days that it is valid for; below 0 it has run out
 */
export function makeCertificate(
  address = '127.0.0.1',
  days = 2,
): { readonly cert: string; readonly key: string } | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'cambium-certificate-'));
  const [cert, key, asked] = ['cert.pem', 'key.pem', 'asked.pem'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const openssl = (...words: string[]) => execFileSync('openssl', words, { stdio: 'ignore' });
  const subject = ['-subj', `/CN=${address}`, '-addext', `subjectAltName=IP:${address}`];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key];
  try {
    openssl('req', ...kind, ...subject, '-out', asked);
    openssl(
      ...['x509', '-req', '-in', asked, '-signkey', key, '-days', String(days)],
      ...['-copy_extensions', 'copy', '-out', cert],
    );
    return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
  } catch {
    return undefined;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
