import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EventReport } from '../../src/cli/event-report.ts';

const test = suite('event report');
const ERASE = '\r\u001b[K';

interface Told {
  readonly event: 'state' | 'news';
  readonly what: string;
  readonly reason?: string;
}

/** A report, what it wrote on stderr, and the lines that it printed. */
function open(isTTY: boolean) {
  const written: string[] = [];
  const printed: string[] = [];
  const stderr = {
    isTTY,
    columns: 0, // as terminals say that do not know
    write: (text: string | Uint8Array) =>
      written.push(typeof text === 'string' ? text : Buffer.from(text).toString()),
  };
  const report = new EventReport<Told>(
    false,
    ({ what, reason = '' }) => what + reason,
    ({ event, what }) => (event === 'state' ? what : undefined),
    stderr,
    (line) => printed.push(line),
  );
  return { report, written, printed };
}

test('a log has a state once, until it is another or something happened', () => {
  const { report, printed } = open(false);
  report.tell({ event: 'state', what: 'waiting', reason: ': 1' });
  report.tell({ event: 'state', what: 'waiting', reason: ': 2' });
  report.tell({ event: 'state', what: 'training' });
  report.tell({ event: 'state', what: 'waiting' });
  report.tell({ event: 'news', what: 'sent' });
  report.tell({ event: 'news', what: 'sent' });
  report.tell({ event: 'state', what: 'waiting' });
  assert.equal(printed, ['waiting: 1', 'training', 'waiting', 'sent', 'sent', 'waiting']);
});

test('on a terminal what another program says stands on lines of its own', () => {
  const { report, written, printed } = open(true);
  report.tell({ event: 'state', what: 'training' });
  const line = `${ERASE}training · 0 s`;
  assert.equal(written.splice(0), [ERASE, line]);
  report.forward(Buffer.from('epoch 1\n'));
  assert.equal(written.splice(0), [ERASE, 'epoch 1\n', line]);
  // A bar that is drawn over and over: ours is not drawn into it.
  report.forward(Buffer.from('50 %'));
  report.forward(Buffer.from('\r100 %'));
  assert.equal(written.splice(0), [ERASE, '50 %', '\r100 %']);
  report.forward(Buffer.from('\n'));
  assert.equal(written.splice(0), ['\n', line]);
  report.forward(Buffer.from('no end'));
  report.tell({ event: 'news', what: 'sent' });
  assert.equal(written.splice(0), [ERASE, 'no end', '\n', ERASE]);
  assert.equal(printed, ['sent']);
  report.close();
});

test('elsewhere than on a terminal it passes as it is', () => {
  const { report, written } = open(false);
  report.pass(['a line']);
  assert.equal(written, ['a line\n']);
});

test.run();
