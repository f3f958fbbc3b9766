import { UnavailableError } from '../errors.ts';
import type { AmqpAddress } from './amqp-address.ts';
import { connectionFailure, openAmqpConnection } from './amqp-connection.ts';

/**
 * Logs in once and looks at a queue.
 *
 * @returns how many messages wait in it
 * @throws UnavailableError `unavailable-broker`, saying why
 */
export async function probeQueue(address: AmqpAddress, vhost: string, queue: string): Promise<number> {
  const connection = await openAmqpConnection({ address, vhost, name: 'cambium doctor' });
  try {
    const failed = new Promise<never>((_, reject) => {
      connection.once('connect-failed', reject);
      connection.once('disconnect', reject);
    });
    const channel = await Promise.race([connection.createChannel(), failed]);
    channel.on('error', () => {}); // the question is refused too
    const { messageCount } = await Promise.race([channel.checkQueue(queue), failed]);
    failed.catch(() => {});
    return messageCount;
  } catch (cause) {
    throw new UnavailableError('unavailable-broker', connectionFailure(address, cause as Error), { cause });
  } finally {
    await connection.close();
  }
}
