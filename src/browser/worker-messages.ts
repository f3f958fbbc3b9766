import type { PackedError } from '../aggregate/packed-errors.ts';
import type { Progress } from '../aggregate/progress.ts';
import type { CoreUrls } from './streamed-core.ts';
import type { Work, WorkResult } from './work.ts';

/** What a page tells its workers. A worker either has a job or is a lane of one. */
export type ToWorker =
  | {
      readonly type: 'job';
      readonly work: Work;
      /** Ends of channels to the workers that are its lanes. */
      readonly lanes: readonly MessagePort[];
      readonly core: CoreUrls | undefined;
    }
  | { readonly type: 'lane'; readonly port: MessagePort; readonly core: CoreUrls | undefined };

export type FromWorker =
  | { readonly type: 'progress'; readonly progress: Progress }
  | { readonly type: 'done'; readonly value: WorkResult }
  | { readonly type: 'failed'; readonly error: PackedError };
