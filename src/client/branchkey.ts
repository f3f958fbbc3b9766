/**
 * The session with a server that speaks BranchKey (wire/branchkey.ts): plain transfers in one piece, no digests, no keys.
 *
 * An upload whose answer was lost is not sent again, because such a server would count it twice: the caller is told that
 * nobody knows.
 */
import { ProtocolError, RefusedError, UnavailableError } from '../errors.ts';
import { openWeights } from '../formats/open.ts';
import { type ByteSource, memorySource } from '../tensor/bytes.ts';
import { readJson } from '../transport/answer.ts';
import type { Http, HttpRequest } from '../transport/http.ts';
import type { RequestBody } from '../transport/request-body.ts';
import { TransientFailure, withRetries } from '../transport/retry.ts';
import {
  type AuthenticateData,
  paths as basicPaths,
  bearerPaths,
  type DownloadData,
  type LoginData,
  loginPaths,
  type PerformanceRequest,
  type RunData,
  type UploadData,
} from '../wire/branchkey.ts';
import { isStatus, isText, read } from './answers.ts';
import { basicAuthorization, type LeafIdentity } from './credentials.ts';
import type { RunDetails } from './dialect.ts';
import { digestOfBytes, readReprDigest } from './digest.ts';
import { type Download, type DownloadedBytes, type DownloadedFile, emptyFile } from './download.ts';
import type { FileAccess } from './file-access.ts';
import type { TransferOptions, UpdateOptions } from './options.ts';
import { Receiver } from './receiver.ts';
import { readBlocks } from './source-bytes.ts';
import type { PreparedUpload, UploadReceipt } from './upload.ts';

/** The placeholder that every client of the service sends, unless it is told otherwise. */
const METADATA = "{'key1':'value1', 'key2':'value2'}";

export class BranchKeySession {
  readonly #http: Http;
  readonly #paths: typeof basicPaths | typeof bearerPaths;

  constructor(http: Http, generation: 'login' | 'basic' | 'bearer') {
    this.#http = http;
    this.#paths = generation === 'bearer' ? bearerPaths : basicPaths;
  }

  /** Logs in by name and password, as clients up to 2.2 do: what stands for the leaf from then on. */
  async logIn(identity: LeafIdentity, signal: AbortSignal): Promise<LeafIdentity> {
    const { leafName, password, treeId, branchId } = identity;
    const data = await this.#ask<LoginData>(
      {
        method: 'PUT',
        target: loginPaths.login(),
        headers: { authorization: basicAuthorization(leafName ?? '', password ?? '') },
        body: bodyOf({ tree_id: treeId, branch_id: branchId }),
        signal,
      },
      'login',
      { id: isText, access_token: isText },
    );
    return { ...identity, leafId: data.id, sessionToken: data.access_token };
  }

  /** Tells the server that the session is over. */
  async logOut(signal: AbortSignal): Promise<void> {
    await this.#http.json({ method: 'PUT', target: loginPaths.logout(), signal });
  }

  /** Who the token belongs to; only the basic generation asks. */
  authenticate(signal: AbortSignal): Promise<AuthenticateData> {
    const request: HttpRequest = { method: 'GET', target: basicPaths.authenticate(), signal };
    return this.#ask<AuthenticateData>(request, 'authentication', { tree_id: isText, branch_id: isText });
  }

  async askRun(branchId: string, signal: AbortSignal): Promise<RunDetails> {
    const headers = { leaf: 'true' };
    const data = await this.#ask<RunData>(
      { method: 'GET', target: this.#paths.run(branchId), headers, signal },
      'run',
      { run_status: isStatus, run_number: (value) => Number.isSafeInteger(Number(value)) },
    );
    return {
      runStatus: data.run_status,
      runNumber: Number(data.run_number),
      round: null,
      updates: null,
      aggregationTarget: null,
      aggregationId: null,
      givenUpRound: null,
    };
  }

  /**
   * Sends an update in one piece.
   *
   * @throws UnavailableError `upload-unconfirmed` when the connection broke after the last byte; else as `Http.open`
   */
  async upload(
    leafName: string | null,
    upload: PreparedUpload,
    { signal, onProgress, metadata = METADATA }: TransferOptions & Pick<UpdateOptions, 'metadata'>,
  ): Promise<UploadReceipt> {
    const { source } = upload;
    const sha256 = await upload.digest();
    const boundary = `cambium-${sha256.slice(0, 32)}`;
    const fileName = (source.name.split(/[/\\]/).at(-1) ?? 'update').replace(/["\r\n]/g, '_');
    const head = new TextEncoder().encode(
      `--${boundary}\r\nContent-Disposition: form-data; name="data"\r\n\r\n` +
        `${JSON.stringify({ leaf_name: leafName, metadata })}\r\n` +
        `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="${fileName}"\r\n\r\n`,
    );
    const tail = new TextEncoder().encode(`\r\n--${boundary}--\r\n`);
    const { data } = await withRetries(this.#http.policy, signal, async () => {
      const form = formOf(upload, head, tail, onProgress);
      try {
        const answer = await this.#http.open({
          method: 'POST',
          target: this.#paths.upload(),
          headers: { 'content-type': `multipart/form-data; boundary=${boundary}` },
          body: form.body,
          isFile: true,
          signal,
        });
        return read<{ data: UploadData }>('upload', await readJson(answer), {
          data: (value) => isText((value as UploadData | null)?.file_id),
        });
      } catch (error) {
        const failure = error instanceof TransientFailure ? error.failure : undefined;
        // A refusal says that it does not count; silence after the last byte says nothing.
        if (failure === undefined || failure instanceof RefusedError || !form.isSent()) throw error;
        throw new UnavailableError(
          'upload-unconfirmed',
          `${source.name}: sent whole, but the answer was lost; look at the branch before sending it again, it may count already`,
          { cause: failure },
        );
      }
    });
    onProgress?.({ bytesDone: source.byteLength, bytesTotal: source.byteLength });
    return {
      fileId: data.file_id,
      run: null,
      round: null,
      weighting: upload.weighting,
      sha256,
      isDuplicate: false,
    };
  }

  /** Throws as `#receive`; FileError. */
  async downloadFile(
    id: string,
    path: string,
    files: FileAccess,
    options: TransferOptions,
  ): Promise<DownloadedFile> {
    let receiver: Receiver | undefined;
    const discard = async () => {
      // What it still writes must not come after its end.
      await receiver?.settle().catch(() => {});
      await receiver?.sink.discard();
      receiver = undefined;
    };
    try {
      const received = await this.#receive(
        id,
        options,
        async (chunk) => {
          receiver ??= new Receiver(await files.openSink(path), {
            startHash: () => files.sha256(),
            gathers: true,
          });
          await receiver.add(chunk);
        },
        discard,
      );
      if (receiver === undefined) throw emptyFile(id);
      const { sink } = receiver;
      await receiver.settle();
      const readInto = sink.readInto.bind(sink);
      const source = { name: `aggregation ${id}`, byteLength: received.byteLength, readInto, close() {} };
      const download = await finish(id, source, receiver.digest() ?? '', received.digest);
      options.signal?.throwIfAborted();
      await sink.commit();
      return { ...download, path };
    } catch (error) {
      await discard();
      throw error;
    }
  }

  async downloadBytes(id: string, options: TransferOptions): Promise<DownloadedBytes> {
    let chunks: Uint8Array[] = [];
    const received = await this.#receive(
      id,
      options,
      // The next one may come in the same memory.
      (chunk) => void chunks.push(chunk.slice()),
      () => {
        chunks = [];
      },
    );
    if (received.byteLength === 0) throw emptyFile(id);
    const bytes = new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer());
    const source = memorySource(bytes, `aggregation ${id}`);
    return { ...(await finish(id, source, await digestOfBytes(bytes), received.digest)), bytes };
  }

  async sendMetrics(request: PerformanceRequest, signal: AbortSignal): Promise<void> {
    await this.#http.json({
      method: 'POST',
      target: this.#paths.performance(),
      body: bodyOf(request),
      signal,
    });
  }

  /** The bytes of an aggregation, by its link or, to an access token, at once. Each attempt begins anew. */
  #receive(
    id: string,
    { signal, onProgress }: TransferOptions,
    take: (chunk: Uint8Array) => void | Promise<void>,
    restart: () => void | Promise<void>,
  ): Promise<{ readonly byteLength: number; readonly digest: string | undefined }> {
    let isFirst = true;
    return withRetries(this.#http.policy, signal, async () => {
      if (!isFirst) await restart();
      isFirst = false;
      const headers = { accept: '*/*' };
      let answer = await this.#http.open({
        method: 'GET',
        target: this.#paths.download(id),
        headers,
        isFile: true,
        signal,
      });
      try {
        if (/^application\/json/i.test(answer.headers.get('content-type') ?? '')) {
          const { data } = read<{ data: DownloadData }>('link', await readJson(answer), {
            data: (value) => isText((value as DownloadData | null)?.download_url),
          });
          if (!/^https?:\/\//i.test(data.download_url)) {
            throw new ProtocolError(
              'protocol-shape',
              'the link to the aggregation is no absolute http(s) URL',
            );
          }
          const target = data.download_url;
          answer = await this.#http.open({ method: 'GET', target, headers, isFile: true, signal });
        }
        const isPlain = !answer.headers.has('content-encoding');
        const announced = isPlain ? answer.headers.get('content-length') : null;
        let byteLength = 0;
        for await (const chunk of answer.chunks()) {
          await take(chunk);
          byteLength += chunk.byteLength;
          onProgress?.({ bytesDone: byteLength, bytesTotal: Number(announced ?? byteLength) });
        }
        if (announced !== null && byteLength < Number(announced)) {
          const said = `${answer.where}: ${byteLength} bytes came of ${announced}`;
          throw new TransientFailure(new ProtocolError('protocol-length', said));
        }
        return { byteLength, digest: readReprDigest(answer.headers.get('repr-digest')) };
      } finally {
        answer.close();
      }
    });
  }

  async #ask<T>(request: HttpRequest, what: string, checks: Parameters<typeof read<T>>[2]): Promise<T> {
    const body = await this.#http.json(request);
    return read<T>(what, (body as { data?: unknown } | null)?.data, checks);
  }
}

/** Checks what arrived: not a page of something between, and the digest where the server tells one. */
async function finish(
  id: string,
  source: ByteSource,
  sha256: string,
  expected: string | undefined,
): Promise<Download> {
  if (expected !== undefined && expected !== sha256) {
    throw new ProtocolError(
      'protocol-digest',
      `aggregation ${id}: the bytes have the SHA-256 ${sha256}, not ${expected}`,
    );
  }
  const { layout } = await openWeights(source);
  return {
    aggregationId: id,
    run: null,
    round: null,
    leaves: null,
    totalWeighting: layout.weighting,
    byteLength: source.byteLength,
    sha256,
    layout,
  };
}

/** JSON without a content type, as the service knows it. */
function bodyOf(value: unknown): RequestBody {
  const whole = new TextEncoder().encode(JSON.stringify(value));
  return { byteLength: whole.byteLength, whole };
}

/** The two parts around an update, and whether the last byte has been handed over. */
function formOf(
  { source, whole }: PreparedUpload,
  head: Uint8Array,
  tail: Uint8Array,
  onProgress: TransferOptions['onProgress'],
): { readonly body: RequestBody; isSent(): boolean } {
  const byteLength = head.byteLength + source.byteLength + tail.byteLength;
  // How far one piece got, nobody tells: it may be there.
  if (whole !== undefined) {
    return { body: { byteLength, whole: new Blob([head, whole, tail] as BlobPart[]) }, isSent: () => true };
  }
  let sent = 0;
  async function* chunks() {
    yield head;
    yield* readBlocks(source);
    yield tail;
  }
  const onSent = (bytes: number) => {
    sent = bytes;
    const bytesDone = Math.max(0, Math.min(source.byteLength, bytes - head.byteLength));
    onProgress?.({ bytesDone, bytesTotal: source.byteLength });
  };
  return { body: { byteLength, chunks, onSent }, isSent: () => sent === byteLength };
}
