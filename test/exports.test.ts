// The public names of each door: a name that comes or goes is a decision, not an accident.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as browser from '../src/browser.ts';
import * as node from '../src/index.ts';

const ERRORS = [
  'AggregationError',
  'CambiumError',
  'FileError',
  'FormatError',
  'InternalError',
  'ProtocolError',
  'RefusedError',
  'UnavailableError',
  'isCambiumError',
];

/** What every host has. */
const COMMON = [
  ...ERRORS,
  'Aggregation',
  'Client',
  'DTYPES',
  'STRATEGY_NAMES',
  'VERSION',
  'average',
  'elementCount',
  'encodeWeights',
  'itemSize',
  'memorySink',
  'memorySource',
  'openStrategy',
  'openWeights',
  'readTensors',
  'strategies',
  'tensorOf',
  'validateWeights',
  'writeWeights',
];

const test = suite('exports');

test('Node', () => {
  const own = ['aggregateFiles', 'openFileSink', 'openFileSource', 'readCredentials', 'startJobs'];
  assert.equal(Object.keys(node).sort(), [...COMMON, ...own].sort());
});

test('browser', () => {
  const own = ['aggregateBlobs', 'blobSource', 'convertBlob', 'startJobs', 'streamCore'];
  assert.equal(Object.keys(browser).sort(), [...COMMON, ...own].sort());
});

test.run();
