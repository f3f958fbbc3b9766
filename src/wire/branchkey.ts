/**
 * The basic generation of the BranchKey protocol: paths and JSON shapes under `/v1`, as clients up to 2.8.0 send and
 * read them. Credentials are `Authorization: Basic base64(leaf id:session token)`.
 *
 * Status codes are compared for equality by those clients, so they are part of the protocol: 201 for an upload and for
 * metrics, 200 for the rest. JSON bodies come without a content type and are parsed by path. A download answers a link
 * that works without credentials.
 */
import type { MetricsMode, RunStatus } from './cambium.ts';

/** What wraps every answer with a status below 400. */
export interface Envelope<T> {
  readonly data: T;
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

/** GET download. */
export interface DownloadData {
  /** Absolute and signed; the request for it carries no credentials. */
  readonly download_url: string;
}

/** POST performance analysis. */
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

/** Paths of the basic generation; every id is escaped. */
export const paths = {
  /** GET 200 AuthenticateData. */
  authenticate: () => '/v1/leaf/authenticate',
  /** GET 200 RunData; clients send `leaf: true`. */
  run: (branchId: string) => `/v1/branch/${encodeURIComponent(branchId)}/run`,
  /** POST multipart, 201 UploadData. */
  upload: () => '/v1/file/upload',
  /** GET 200 DownloadData. */
  download: (fileId: string) => `/v1/file/download/${encodeURIComponent(fileId)}`,
  /** POST PerformanceRequest without a content type, 201. */
  performance: () => '/v1/performance/analysis',
} as const;
