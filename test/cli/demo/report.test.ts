import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { RoundReport } from '../../../src/cli/demo/federation.ts';
import { header, introduction, row, summary } from '../../../src/cli/demo/report.ts';

const test = suite('cli/demo/report');

const places = { server: 'http://127.0.0.1:1', folder: '/demo', serverFolder: '/demo/server' };
const report = (round: number): RoundReport => ({
  round,
  updates: 2,
  target: 2,
  totalWeighting: 1400,
  aggregationSeconds: 0.00349,
  aggregationId: 'id',
  model: '/demo/global/round-01.npy',
  accuracy: 0.8765,
  leaves: [
    { name: 'leaf-1', samples: 200, accuracy: 0.4 },
    { name: 'leaf-2', samples: 1200, accuracy: 0.6125 },
  ],
  centralised: 1,
});

test('a round is a line under its header', () => {
  assert.equal(
    [...header(report(1)), row(report(1)), row(report(10))],
    [
      '                                                       each alone   all data in',
      'round  updates  weighting  averaged in  global     leaf-1  leaf-2     one place',
      '    1      2/2       1400       3.5 ms  87.6 %     40.0 %  61.3 %       100.0 %',
      '   10      2/2       1400       3.5 ms  87.6 %     40.0 %  61.3 %       100.0 %',
    ],
  );
});

test('the end compares with the best leaf and with all data, and says where the files are', () => {
  const text = summary('branch-id', report(10), places, 6.54).join('\n');
  for (const part of [
    'After 10 rounds',
    'together                    87.6 %',
    'best leaf alone (leaf-2)    61.3 %',
    'all data in one place       100.0 %',
    '/demo/global/round-*.npy',
    '/demo/server   (branch branch-id)',
    'done in 6.5 s',
  ]) {
    assert.ok(text.includes(part), `${part}\nin\n${text}`);
  }
  assert.match(summary('branch-id', report(1), places, 1).join('\n'), 'After 1 round,');
});

test('the beginning tells who has what', () => {
  const samples = (n: number) => ({ images: new Uint8Array(n * 784), labels: new Uint8Array(n) });
  const split = { shards: [{ name: 'leaf-1', own: [3, 8], samples: samples(201) }], heldOut: samples(2000) };
  const text = introduction(split, places).join('\n');
  for (const part of [places.server, places.folder, 'leaf-1      201 digits, mostly 3, 8', '2000 digits'])
    assert.ok(text.includes(part), text);
});

test.run();
