import type { LaneOrder, LaneStage, Span, SpanResult } from './lanes.ts';
import type { PackedError } from './packed-errors.ts';

/** What goes to a lane's thread. `id` comes back with the answer. */
export type ToLane = { readonly id: number } & (
  | { readonly type: 'open'; readonly order: LaneOrder }
  | { readonly type: 'begin'; readonly stage: LaneStage }
  | { readonly type: 'run'; readonly span: Span }
  | { readonly type: 'close' }
);

export type FromLane =
  | { readonly id: number; readonly type: 'done'; readonly value: SpanResult | null }
  | { readonly id: number; readonly type: 'failed'; readonly error: PackedError };
