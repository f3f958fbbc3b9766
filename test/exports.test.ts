// The public names of each door: a name that comes or goes is a decision, not an accident.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as browser from '../src/browser.ts';
import * as edge from '../src/edge.ts';
import * as node from '../src/index.ts';
import * as tensorflow from '../src/tensorflow.ts';

const ERRORS = [
  'AggregationError',
  'CambiumError',
  'ExchangeError',
  'FileError',
  'FormatError',
  'InternalError',
  'ProtocolError',
  'RefusedError',
  'UnavailableError',
  'isCambiumError',
];

/** What every host has. */
const EMBEDDED = [
  'addModel',
  'decodeUpdate',
  'encodeUpdate',
  'proximalGradient',
  'subtractModel',
  ...ERRORS,
  'Aggregation',
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
  'writeWeights',
];

/** What hosts with a network have. */
const COMMON = [
  ...EMBEDDED,
  'Client',
  'arraysOf',
  'nestedOf',
  'presets',
  'updateFromArrays',
  'validateWeights',
  'weightings',
];

const test = suite('exports');

test('edge', () => {
  assert.equal(Object.keys(edge).sort(), [...EMBEDDED].sort());
});

test('Node', () => {
  const own = [
    'aggregateFiles',
    'convertFile',
    'mergeFiles',
    'openFileSink',
    'openFileSource',
    'readCredentials',
    'saveWeights',
    'startJobs',
  ];
  assert.equal(Object.keys(node).sort(), [...COMMON, ...own].sort());
});

test('browser', () => {
  const own = ['aggregateBlobs', 'blobSource', 'convertBlob', 'startJobs', 'streamCore'];
  assert.equal(Object.keys(browser).sort(), [...COMMON, ...own].sort());
});

test('TensorFlow.js', () => {
  assert.equal(Object.keys(tensorflow).sort(), ['setTensorFlowWeights', 'updateFromTensorFlow']);
});

test.run();
