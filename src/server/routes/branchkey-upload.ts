/** Uploads as the clients of BranchKey send them: a multipart form whose part `file` is the weights. */
import multipart, { type Multipart, type MultipartFile } from '@fastify/multipart';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Envelope, UploadData } from '../../wire/branchkey.ts';
import type { Leaf } from '../domain/leaves.ts';
import { Refusal } from '../domain/refusal.ts';
import type { RouteContext } from './context.ts';
import { checkUpload, drainAfterAnswer, receiveUpdate } from './uploads.ts';

/** The part `data` is a line of JSON. */
const MAX_FIELD_BYTES = 64 << 10;

/** Parts beside the two of the protocol are skipped, up to so many. */
const MAX_PARTS = 16;

/** Room for the boundaries, the headers and the other part around a file. */
const FRAMING_BYTES = MAX_FIELD_BYTES + 4096;

/** Registers the upload of one generation; the scope is its own. */
export async function branchkeyUpload(
  app: FastifyInstance,
  context: RouteContext,
  path: string,
  identify: (request: FastifyRequest) => Promise<{ readonly leaf: Leaf }>,
): Promise<void> {
  app.addHook('onRequest', async (request, reply) => drainAfterAnswer(request, reply, context));
  await app.register(multipart, {
    // The spool has the limit that counts; busboy would cut a file silently.
    limits: {
      fieldSize: MAX_FIELD_BYTES,
      parts: MAX_PARTS,
      files: 1,
      fileSize: Number.MAX_SAFE_INTEGER,
    },
    throwFileSizeLimit: false,
  });

  app.post(path, async (request, reply): Promise<void> => {
    const { leaf } = await identify(request);
    await checkUpload(context, leaf, request, FRAMING_BYTES);
    const form = new Form(request);
    const { file } = await form.file();
    const { file_id } = await receiveUpdate(context, leaf, request, file, { whole: () => form.end() });
    const answer: Envelope<UploadData> = { data: { file_id } };
    return reply.status(201).send(answer);
  });
}

/** The parts of a multipart body, in their order. */
class Form {
  readonly #parts: AsyncIterator<Multipart>;

  constructor(request: FastifyRequest) {
    this.#parts = request.parts()[Symbol.asyncIterator]();
  }

  /** The part with the weights; the parts before it are skipped. Throws Refusal. */
  async file(): Promise<MultipartFile> {
    for (let part = await this.#next(); part !== undefined; part = await this.#next()) {
      if (part.type !== 'file') continue;
      if (part.fieldname === 'file') return part;
      part.file.resume();
    }
    throw new Refusal('unprocessable', 'file-missing', 'the upload has no part "file" with a file name');
  }

  /** Skips the parts that are left, to the last boundary. Throws Refusal where that is missing. */
  async end(): Promise<void> {
    for (let part = await this.#next(); part !== undefined; part = await this.#next()) {
      if (part.type === 'file') part.file.resume();
    }
  }

  async #next(): Promise<Multipart | undefined> {
    try {
      const { done, value } = await this.#parts.next();
      return done ? undefined : value;
    } catch (cause) {
      // What has a code is known to everybody (routes/errors.ts); the parser's own faults have none.
      if (!(cause instanceof Error) || 'code' in cause) throw cause;
      if (/unexpected end|terminated early/i.test(cause.message)) {
        const message = 'the upload ended before its last byte';
        throw new Refusal('malformed', 'upload-incomplete', message, undefined, { cause });
      }
      throw new Refusal('malformed', 'multipart-invalid', 'the body is no multipart form', undefined, {
        cause,
      });
    }
  }
}
