/**
 * RabbitMQ's HTTP auth backend: it posts a form for each log-in, each entry into a virtual host and each thing that a
 * user touches, and takes `allow` or `deny` as text with status 200. What it asks tells nobody more than a client's own
 * attempt would. Forms only, by POST: in a query a password would end up in logs.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { BrokerPermission, BrokerRegister } from '../broker/register.ts';

/** A question has a handful of short fields. */
const MAX_FORM_BYTES = 16 << 10;

type Form = Readonly<Record<string, string | undefined>>;

export function rabbitmqRoutes(app: FastifyInstance, register: BrokerRegister): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    'application/x-www-form-urlencoded',
    { parseAs: 'string', bodyLimit: MAX_FORM_BYTES },
    (_request, text, done) => done(null, Object.fromEntries(new URLSearchParams(text as string))),
  );

  const answer = (path: string, isAllowed: (form: Form) => Promise<boolean>) =>
    app.post(path, async (request, reply) => {
      reply.type('text/plain; charset=utf-8');
      return (await isAllowed(formOf(request))) ? 'allow' : 'deny';
    });

  answer('/rabbitmq/user', async ({ username = '', password = '' }) => register.mayLogIn(username, password));
  answer('/rabbitmq/vhost', async ({ username = '', vhost = '' }) => register.mayEnter(username, vhost));
  answer('/rabbitmq/resource', async ({ username = '', vhost = '', resource, name = '', permission }) =>
    (resource === 'queue' || resource === 'exchange') && isPermission(permission)
      ? register.mayUse(username, vhost, name, permission)
      : false,
  );
  // Asked only of who publishes to a topic exchange or binds to one: there is none.
  answer('/rabbitmq/topic', async () => false);
}

function formOf(request: FastifyRequest): Form {
  return (request.body ?? {}) as Form; // its parser is above
}

function isPermission(text: string | undefined): text is BrokerPermission {
  return text === 'configure' || text === 'write' || text === 'read';
}
