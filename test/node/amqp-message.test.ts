import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { readMessage } from '../../src/node/amqp-message.ts';

const bytes = (text: string) => new TextEncoder().encode(text);

test('aggregations of all generations, with the key by which a repetition is known', () => {
  const cases: readonly (readonly [string, boolean, string])[] = [
    ['{"message_type":"aggregation_status","body":{"aggregation_id":"a"}}', false, 'a'],
    ['{"message_type":"aggregation_status","body":{"aggregation_id":"a"},"aggregation_id":"b"}', false, 'a'],
    ['{"aggregation_id":"c"}', false, 'c'],
    ['0f-plain', true, '0f-plain'],
    ['17', true, '17'],
  ];
  for (const [text, isPlain, id] of cases) {
    const read = readMessage(bytes(text), isPlain);
    assert.ok(typeof read === 'object', `${text}: ${read}`);
    assert.is(read.key, id, text);
    assert.is(read.message.type, 'aggregation_status');
    assert.is(
      (JSON.parse(read.message.data) as { body: { aggregation_id: string } }).body.aggregation_id,
      id,
    );
  }
});

test('what repeats without harm has no key', () => {
  for (const text of [
    '{"message_type":"run_status","body":{"run_status":"pause"}}',
    '{"message_type":"of tomorrow"}',
  ]) {
    const read = readMessage(bytes(text), false);
    assert.ok(typeof read === 'object');
    assert.is(read.key, undefined);
  }
});

test('what is no notice is told without quoting it', () => {
  const cases: readonly (readonly [Uint8Array, boolean, RegExp])[] = [
    [new Uint8Array(0), true, /no JSON/],
    [bytes('no json: s3cret'), true, /no JSON/],
    [bytes('0f-plain'), false, /no JSON/],
    [bytes('17'), false, /no object/],
    [bytes('null'), false, /no object/],
    [bytes('[]'), false, /no message_type/],
    [bytes('{"message_type":5}'), false, /no message_type/],
    [bytes('{"message_type":"run_status"}'), false, /no body/],
    [bytes('{"message_type":"run_status","body":{}}'), false, /tells none/],
    [bytes('{"message_type":"aggregation_status","body":{"aggregation_id":""}}'), false, /tells none/],
    [Uint8Array.of(0xff, 0xfe), true, /UTF-8/],
    [new Uint8Array((1 << 16) + 1).fill(32), true, /65537 bytes/],
  ];
  for (const [content, isPlain, expected] of cases) {
    const read = readMessage(content, isPlain);
    assert.type(read, 'string');
    assert.match(read as string, expected);
    assert.not.match(read as string, /s3cret/);
  }
});

test.run();
