/**
 * The BranchKey protocol: paths and JSON shapes of the generations that speak HTTP alone, as their clients send and read
 * them. One server answers all of them at once, because their paths do not collide and their credentials tell the rest.
 *
 *     generation   clients                  paths      Authorization
 *     login        2.0 to 2.2               /v1        Basic <leaf name>:<password> to log in and, up to 2.2.0, out;
 *                                                      Basic <leaf id>:<access token> else; 2.2.1 logs out with
 *                                                      <leaf name>:<access token>
 *     basic        2.3 to 2.6.2, 2.8.0      /v1        Basic <leaf id>:<session token>
 *     bearer       2.7                      /api/v1    Bearer <leaf id>:<session token>, not encoded
 *
 * Status codes are compared for equality by those clients, so they are part of the protocol: 201 for a login, an upload
 * and metrics, 200 for the rest. JSON bodies come without a content type and are parsed by path. Ids are strings, the
 * number of a run is a number.
 *
 * A download answers the file itself to an access token, and to a session token a link that works without credentials:
 * nothing else tells a client of 2.2 from one of 2.3. The login generation and the basic one read
 * `[weighting, [arrays]]` in a `.npy`, the bearer generation an `.npz` of `layer_0`, `layer_1`, … without a weighting.
 *
 * The generation after these (2.9.1 and later) speaks WebSocket; it is not served, because its protocol is not known.
 */
import type { MetricsMode, RunStatus } from './cambium.ts';

/** What wraps every answer with a status below 400. */
export interface Envelope<T> {
  readonly data: T;
}

/** PUT login. */
export interface LoginRequest {
  readonly tree_id: string;
  readonly branch_id: string;
}

export interface LoginData {
  /** Of the leaf; from now on it stands where the name stood. */
  readonly id: string;
  readonly access_token: string;
  /** Read by 2.0. */
  readonly logged_in: true;
  /** Read by 2.1 and 2.2. */
  readonly status: 'logged_in';
}

/** PUT logout; clients look at the status only. */
export interface LogoutData {
  readonly id: string;
  readonly logged_in: false;
  readonly status: 'logged_out';
}

/** GET authenticate. */
export interface AuthenticateData {
  readonly id: string;
  readonly name: string;
  readonly tree_id: string;
  readonly branch_id: string;
  readonly user_id: string;
}

/** GET run. */
export interface RunData {
  readonly run_status: RunStatus;
  readonly run_number: number;
}

/**
 * POST upload: two parts in this order, the field `data` with JSON of `{ leaf_name, metadata }`, which a server does not
 * need, and `file`, with a file name but without a content type.
 */
export interface UploadData {
  readonly file_id: string;
}

/** GET download with a session token. */
export interface DownloadData {
  /** Absolute and signed; the request for it carries no credentials. */
  readonly download_url: string;
}

/** POST performance analysis; 2.4.0 sends it by GET, with a body. */
export interface PerformanceRequest {
  /** Missing in 2.4.0 and 2.4.1. */
  readonly mode?: MetricsMode;
  readonly aggregation_id: string;
  readonly leaf_id: string;
  readonly branch_id: string;
  readonly tree_id: string;
  /** The caller's string, usually JSON. */
  readonly data: string;
}

/** Paths of the login generation; the others it shares with the basic one. */
export const loginPaths = {
  /** PUT LoginRequest without a content type, 201 LoginData. */
  login: () => '/v1/leaf/login',
  /** PUT without a body, 200. */
  logout: () => '/v1/leaf/logout',
} as const;

/** Paths of the basic generation; every id is escaped. */
export const paths = {
  /** GET 200 AuthenticateData. */
  authenticate: () => '/v1/leaf/authenticate',
  /** GET 200 RunData; clients send `leaf: true`. */
  run: (branchId: string) => `/v1/branch/${encodeURIComponent(branchId)}/run`,
  /** POST multipart, 201 UploadData. */
  upload: () => '/v1/file/upload',
  /** GET 200 DownloadData, or the file. */
  download: (fileId: string) => `/v1/file/download/${encodeURIComponent(fileId)}`,
  /** POST PerformanceRequest without a content type, 201. */
  performance: () => '/v1/performance/analysis',
} as const;

/** Paths of the bearer generation, which authenticates nowhere in particular. */
export const bearerPaths = {
  /** GET 200 RunData; clients send `LEAF: true`. */
  run: (branchId: string) => `/api/v1/run/${encodeURIComponent(branchId)}`,
  /** POST multipart, 201 UploadData. */
  upload: () => '/api/v1/file/upload',
  /** GET 200 DownloadData. */
  download: (fileId: string) => `/api/v1/file/download/${encodeURIComponent(fileId)}`,
  /** POST PerformanceRequest without a content type, 201. */
  performance: () => '/api/v1/performance/analysis',
} as const;
