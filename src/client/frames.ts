/**
 * Uploads of hosts that read files and digest them piece by piece: many blocks in a request, each in a frame that vouches
 * for it (wire/cambium.ts, `FRAMES_TYPE`; the receiver's side is server/routes/resumable.ts). The file is read once: the
 * digest that its frames carry on is in the end that of the whole. Every attempt begins the upload anew, and the server
 * says how far it came, whoever was started anew meanwhile.
 */
import { ProtocolError, RefusedError } from '../errors.ts';
import { readJson } from '../transport/answer.ts';
import type { Http } from '../transport/http.ts';
import { TransientFailure, withRetries } from '../transport/retry.ts';
import { FRAME_HEAD_BYTES, FRAMES_TYPE } from '../wire/cambium.ts';
import { readUpload } from './answers.ts';
import { beginBlocks, confirmsOffset, lookAgain, type Standing } from './blocks.ts';
import { writeReprDigest } from './digest.ts';
import type { Sha256 } from './file-access.ts';
import { readFull } from './source-bytes.ts';
import type { PreparedUpload, SendOptions, Sent } from './upload.ts';

/** Of a block that is under way when the line breaks, all is lost: on a bad line they become smaller, down to the second. */
const FRAME_BYTES = 256 << 10;
const MIN_FRAME_BYTES = 16 << 10;

/**
 * A request begins small and doubles while all goes well: something between us and the server may keep requests until
 * they are whole, and then a break costs all of one.
 */
const MIN_REQUEST_BYTES = 1 << 20;
const MAX_REQUEST_BYTES = 32 << 20;

/** Read and handed to the connection at once. */
const PIECE_BYTES = 256 << 10;

/**
 * Sends an update in frames.
 *
 * @param startHash the host's digest
 * @throws as `sendBlocks`
 */
export async function sendFrames(
  http: Http,
  leafId: string,
  upload: PreparedUpload,
  options: SendOptions,
  startHash: () => Sha256,
): Promise<Sent> {
  const { source } = upload;
  const { signal, onProgress } = options;
  const { byteLength } = source;
  const trail = new DigestTrail(upload, startHash);
  /** Known when all has been read once. */
  let sha256: string | undefined;
  let reached = 0;
  let frameBytes = FRAME_BYTES;
  let requestBytes = MIN_REQUEST_BYTES;

  const begin = async (): Promise<Standing> => {
    if (sha256 === undefined) {
      try {
        const standing = await beginBlocks(http, leafId, upload, options, undefined);
        if ('receipt' in standing || standing.offset === 0) return standing;
        if (standing.digest === (await trail.at(standing.offset, signal)).digest()) return standing;
        // The beginning of another one of the same length: this one needs a name.
      } catch (error) {
        // Perhaps by this very one.
        if (!(error instanceof RefusedError) || error.code !== 'update-exists') throw error;
      }
      sha256 = await upload.digest();
    }
    return beginBlocks(http, leafId, upload, options, sha256);
  };

  const attempt = async (): Promise<Sent> => {
    const standing = await begin();
    if ('receipt' in standing) return { answer: standing.receipt, sha256: sha256 ?? (await upload.digest()) };
    const { target } = standing;
    let { offset } = standing;
    for (;;) {
      reached = Math.max(reached, offset);
      onProgress?.({ bytesDone: offset, bytesTotal: byteLength });
      if (offset === byteLength) break;
      const end = Math.min(byteLength, offset + requestBytes);
      try {
        await sendRange(http, target, trail, offset, end, frameBytes, options);
      } catch (error) {
        if (error instanceof TransientFailure) {
          frameBytes = Math.max(MIN_FRAME_BYTES, frameBytes >> 1);
          requestBytes = MIN_REQUEST_BYTES;
        }
        throw error;
      }
      frameBytes = Math.min(FRAME_BYTES, frameBytes * 2);
      requestBytes = Math.min(MAX_REQUEST_BYTES, requestBytes * 2);
      offset = end;
    }
    sha256 ??= (await trail.at(byteLength, signal)).digest();
    const answer = await http.open({
      method: 'PATCH',
      target,
      headers: {
        'content-type': 'application/partial-upload',
        'repr-digest': writeReprDigest(sha256),
        'upload-offset': String(byteLength),
        'upload-complete': '?1',
      },
      // The server examines all of it now.
      timeouts: { responseMs: http.patienceMs(byteLength) },
      signal,
    });
    return { answer: readUpload(await readJson(answer)), sha256 };
  };
  return withRetries(
    http.policy,
    signal,
    () => attempt().catch(lookAgain),
    () => reached,
  );
}

async function sendRange(
  http: Http,
  target: string,
  trail: DigestTrail,
  offset: number,
  end: number,
  frameBytes: number,
  { signal, onProgress }: SendOptions,
): Promise<void> {
  const hash = await trail.at(offset, signal);
  trail.forgetBefore(offset);
  const bytesTotal = trail.byteLength;
  const answer = await http.open({
    method: 'PATCH',
    target,
    headers: {
      'content-type': FRAMES_TYPE,
      'upload-offset': String(offset),
      'upload-complete': '?0',
    },
    body: {
      byteLength: end - offset + Math.ceil((end - offset) / frameBytes) * FRAME_HEAD_BYTES,
      chunks: () => framed(trail, hash.copy(), offset, end, frameBytes),
      onSent: (sent) => onProgress?.({ bytesDone: Math.min(end, offset + sent), bytesTotal }),
    },
    isFile: true,
    signal,
  });
  await readJson(answer);
  if (!confirmsOffset(answer.headers, end)) {
    throw new ProtocolError('protocol-upload', `${answer.where}: the server does not confirm the blocks`);
  }
}

/** The frames of a range, several in an array, the next ones read while these are on their way: two arrays, by turns. */
async function* framed(
  trail: DigestTrail,
  hash: Sha256,
  from: number,
  end: number,
  frameBytes: number,
): AsyncGenerator<Uint8Array, void, void> {
  const room = PIECE_BYTES + Math.ceil(PIECE_BYTES / frameBytes) * FRAME_HEAD_BYTES;
  let [memory, other] = [new Uint8Array(room), new Uint8Array(room)];
  const read = (offset: number) => {
    [memory, other] = [other, memory];
    const piece = readPiece(trail, offset, Math.min(end, offset + PIECE_BYTES), frameBytes, memory);
    piece.catch(() => {}); // heard when its turn comes
    return piece;
  };
  let next = read(from);
  for (let offset = from; offset < end; offset += PIECE_BYTES) {
    const piece = await next;
    if (offset + PIECE_BYTES < end) next = read(offset + PIECE_BYTES);
    sealFrames(piece, trail, hash, offset, frameBytes);
    yield piece;
  }
}

/**
 * Bytes with room for a head before each frame. They are read in one go behind all heads and then moved to their places,
 * each to the left: no frame covers one that is still to be moved.
 */
async function readPiece(
  { source }: DigestTrail,
  offset: number,
  end: number,
  frameBytes: number,
  memory: Uint8Array,
): Promise<Uint8Array> {
  const count = Math.ceil((end - offset) / frameBytes);
  const heads = count * FRAME_HEAD_BYTES;
  const piece = memory.subarray(0, heads + end - offset);
  await readFull(source, offset, piece.subarray(heads));
  for (let i = 0; i < count; i++) {
    const from = heads + i * frameBytes;
    const to = i * (FRAME_HEAD_BYTES + frameBytes) + FRAME_HEAD_BYTES;
    if (to !== from) piece.copyWithin(to, from, from + frameBytes);
  }
  return piece;
}

/** Fills the heads in, and carries the digest on. */
function sealFrames(
  piece: Uint8Array,
  trail: DigestTrail,
  hash: Sha256,
  offset: number,
  frameBytes: number,
): void {
  const view = new DataView(piece.buffer);
  let end = offset;
  for (let at = 0; at < piece.byteLength; at += FRAME_HEAD_BYTES + frameBytes) {
    const block = piece.subarray(at + FRAME_HEAD_BYTES, at + FRAME_HEAD_BYTES + frameBytes);
    hash.update(block);
    view.setUint32(at, block.byteLength);
    piece.set(hash.copy().digestBytes(), at + 4);
    end += block.byteLength;
    trail.note(end, hash);
  }
}

/** The digest of the source up to each place where the upload may have to go on. */
class DigestTrail {
  readonly source: PreparedUpload['source'];
  readonly #startHash: () => Sha256;
  readonly #states = new Map<number, Sha256>();

  constructor({ source }: PreparedUpload, startHash: () => Sha256) {
    this.source = source;
    this.#startHash = startHash;
  }

  get byteLength(): number {
    return this.source.byteLength;
  }

  note(offset: number, hash: Sha256): void {
    this.#states.set(offset, hash.copy());
  }

  forgetBefore(offset: number): void {
    for (const each of this.#states.keys()) if (each < offset) this.#states.delete(each);
  }

  /** A copy. Read again from the beginning where it was not noted. */
  async at(offset: number, signal: AbortSignal | undefined): Promise<Sha256> {
    const known = this.#states.get(offset);
    if (known !== undefined) return known.copy();
    const hash = this.#startHash();
    for (let done = 0; done < offset; done += PIECE_BYTES) {
      signal?.throwIfAborted();
      const piece = new Uint8Array(Math.min(PIECE_BYTES, offset - done));
      await readFull(this.source, done, piece);
      hash.update(piece);
    }
    this.note(offset, hash);
    return hash;
  }
}
