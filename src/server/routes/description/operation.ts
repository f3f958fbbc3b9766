/** One operation of the API, as the tables beside this file list them. */
export interface Operation {
  readonly method: 'get' | 'head' | 'post' | 'put' | 'patch' | 'delete';
  /** Below the prefix of the API. */
  readonly path: string;
  readonly summary: string;
  readonly who: 'anybody' | 'operator' | 'leaf' | 'operator or leaf' | 'bearer of a signed link';
  /** Query parameters, with what they say. */
  readonly query?: Readonly<Record<string, string>>;
  /** Request headers beside the credentials. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Media types of a body of bytes, with what they say; `application/octet-stream` unless given. */
  readonly mediaTypes?: Readonly<Record<string, string>>;
  /** Headers of the answer that say something of their own. */
  readonly answerHeaders?: Readonly<Record<string, string>>;
  /** Other answers than refusals: status and what it says. They have the same headers. */
  readonly otherAnswers?: Readonly<Record<number, string>>;
  /** Schema of a JSON request body, or `bytes`. */
  readonly body?: object | 'bytes';
  readonly status: number;
  /** What the answer is: a shape by name, bytes, events or nothing. */
  readonly answer: string | 'bytes' | 'events' | 'nothing';
  /** Codes of refusals that belong to this operation. */
  readonly codes?: readonly string[];
}
