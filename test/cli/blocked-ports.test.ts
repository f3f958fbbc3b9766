import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { BLOCKED_PORTS } from '../../src/cli/blocked-ports.ts';

test('these are the ports above the privileged ones that fetch refuses', async () => {
  for (const port of BLOCKED_PORTS) {
    const error = await fetch(`http://127.0.0.1:${port}`).then(
      () => undefined,
      (failure: Error) => failure.cause,
    );
    assert.is((error as Error).message, 'bad port', `${port}`);
  }
});

test.run();
