import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventParser, type ServerEvent } from '../../src/transport/event-parser.ts';
import { failsWith } from '../helpers/errors.ts';

interface Parsed {
  readonly events: { readonly type: string; readonly data: string; readonly id: string }[];
  readonly lastEventId: string;
  readonly retryMs: number | undefined;
}

function parse(chunks: readonly Uint8Array[]): Parsed {
  const parser = new EventParser();
  const events: (ServerEvent & { id: string })[] = [];
  for (const chunk of chunks) {
    // Step by step: the id belongs to the event that was just given.
    for (const event of parser.push(chunk)) events.push({ ...event, id: parser.lastEventId });
  }
  return { events, lastEventId: parser.lastEventId, retryMs: parser.retryMs };
}

const event = (data: string, type = 'message', id = '') => ({ type, data, id });

const TABLE: readonly [name: string, text: string, expected: Partial<Parsed>][] = [
  ['LF', 'data: a\n\n', { events: [event('a')] }],
  ['CR', 'data: a\r\rdata: b\r\r', { events: [event('a'), event('b')] }],
  ['CRLF', 'data: a\r\n\r\ndata: b\r\n\r\n', { events: [event('a'), event('b')] }],
  ['mixed ends', 'data: a\r\ndata: b\n\rdata: c\r\n\n', { events: [event('a\nb'), event('c')] }],
  ['several data lines', 'data: a\ndata:b\ndata:  c\ndata\n\n', { events: [event('a\nb\n c\n')] }],
  ['empty data is an event', 'data\n\n', { events: [event('')] }],
  ['no data is none', 'event: x\nid: 3\n\n', { events: [], lastEventId: '3' }],
  ['type and id', 'event: run_status\nid: 7\ndata: x\n\n', { events: [event('x', 'run_status', '7')] }],
  [
    'id stays, type does not',
    'event: t\nid: 7\ndata: x\n\ndata: y\n\n',
    {
      events: [event('x', 't', '7'), event('y', 'message', '7')],
    },
  ],
  [
    'id with NUL ignored',
    'id: 1\ndata: x\n\nid: a\0b\ndata: y\n\n',
    {
      events: [event('x', 'message', '1'), event('y', 'message', '1')],
    },
  ],
  [
    'empty id clears',
    'id: 1\ndata: x\n\nid\ndata: y\n\n',
    { events: [event('x', 'message', '1'), event('y')] },
  ],
  ['comments', ': hello\n\n:\ndata: x\n: between\n\n', { events: [event('x')] }],
  ['retry', 'retry: 250\n\n', { events: [], retryMs: 250 }],
  ['retry that is no number', 'retry: 2s\nretry:\nretry: -1\n\n', { events: [], retryMs: undefined }],
  ['unknown fields', 'data: x\nfoo: y\nDATA: z\n data: w\n\n', { events: [event('x')] }],
  ['byte order mark', '\ufeffdata: x\n\n', { events: [event('x')] }],
  ['UTF-8 of all lengths', 'data: aé€😀\n\n', { events: [event('aé€😀')] }],
  ['unfinished at the end', 'data: x\n\nid: 9\ndata: y\n', { events: [event('x')], lastEventId: '' }],
];

for (const [name, text, expected] of TABLE) {
  test(`${name}: in one piece, and cut in two or three at every byte`, () => {
    const bytes = new TextEncoder().encode(text);
    const check = (chunks: Uint8Array[], where: string) => {
      const actual = parse(chunks);
      for (const key of Object.keys(expected) as (keyof Parsed)[]) {
        assert.equal(actual[key], expected[key], `${where}: ${key}`);
      }
    };
    check([bytes], 'whole');
    for (let i = 0; i <= bytes.length; i++) {
      for (let j = i; j <= bytes.length; j++) {
        check([bytes.subarray(0, i), bytes.subarray(i, j), bytes.subarray(j)], `cut at ${i} and ${j}`);
      }
    }
  });
}

test('bytes that are no UTF-8 become replacement characters', () => {
  const bytes = Uint8Array.from([...new TextEncoder().encode('data: '), 0xff, 0xc3, 10, 10]);
  assert.equal(parse([bytes]).events, [event('\ufffd\ufffd')]);
});

test('an event may have 1 MiB of characters, in one line or in many', async () => {
  const limit = 1 << 20;
  const encode = (text: string) => new TextEncoder().encode(text);
  const fits = `data:${'x'.repeat(limit - 5)}\n\n`;
  assert.is(parse([encode(fits)]).events[0]?.data.length, limit - 5);
  await failsWith('protocol-too-long', () => parse([encode(`data:${'x'.repeat(limit - 4)}\n\n`)]));
  await failsWith('protocol-too-long', () => parse([encode('x'.repeat(limit)), encode('x')]));
  await failsWith('protocol-too-long', () => parse([encode('data:x\n'.repeat(limit / 6 + 1))]));
});

test('comments without end cost nothing', () => {
  const comment = new TextEncoder().encode(`:${'x'.repeat(1023)}\n`);
  assert.equal(parse(Array.from({ length: 2000 }, () => comment)).events, []);
});

test.run();
