import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';

const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));

/** The built command line in a folder. */
export function commandIn(folder: string) {
  function cambium(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    return new Promise((resolve) => {
      execFile(process.execPath, [cli, ...args], { cwd: folder }, (error, stdout, stderr) => {
        const code = typeof error?.code === 'number' ? error.code : error === null ? 0 : -1;
        resolve({ code, stdout, stderr });
      });
    });
  }

  /** The report of a command that must succeed. */
  async function report(...args: string[]) {
    const { code, stdout, stderr } = await cambium(...args, '--json');
    assert.is(code, 0, stderr);
    return JSON.parse(stdout);
  }

  /** The message of a command that must fail so. */
  async function failsWith(exitCode: number, code: string, ...args: string[]): Promise<string> {
    const { code: actual, stdout } = await cambium(...args, '--json');
    const { code: said, message } = JSON.parse(stdout);
    assert.is(said, code, stdout);
    assert.is(actual, exitCode);
    return message;
  }

  return { cambium, report, failsWith };
}
