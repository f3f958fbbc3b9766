import { CambiumError } from '../../errors.ts';

/** Why the domain says no; the routes translate each reason into one status. */
export type RefusalReason =
  | 'malformed' // the request says something impossible
  | 'unauthenticated' // nobody, or with a wrong token
  | 'forbidden' // known, but not allowed
  | 'missing' // there is no such thing
  | 'unacceptable' // it cannot be given in the form that was asked for
  | 'conflict' // possible, but not in the present state
  | 'unprocessable' // understood, but the content is not acceptable
  | 'too-large'
  | 'too-slow'
  | 'disk-full';

/** A request that the server understood and declines. Nothing has changed when it is thrown. */
export class Refusal extends CambiumError {
  readonly reason: RefusalReason;
  readonly details: Readonly<Record<string, unknown>> | undefined;

  constructor(
    reason: RefusalReason,
    code: string,
    message: string,
    details?: Readonly<Record<string, unknown>>,
    options?: ErrorOptions,
  ) {
    super(code, message, options);
    this.reason = reason;
    this.details = details;
  }
}

/** The refusal for an id that nothing has. */
export function unknown(kind: string, id: string): Refusal {
  return new Refusal('missing', `${kind}-unknown`, `there is no ${kind} with the id ${id}`);
}
