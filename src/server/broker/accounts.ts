/** Virtual hosts and users of the broker: made by us through its management API, or answered for by us when it asks. */
import type { BrokerRights } from '../../wire/broker.ts';

export interface Accounts {
  /** Makes a virtual host in which the server may do everything. */
  makeVhost(name: string): Promise<void>;
  makeUser(name: string, passwordHash: string, vhost: string, rights: BrokerRights): Promise<void>;
  /** Removes a user and ends its connections. */
  removeUser(name: string): Promise<void>;
}

/** What is needed of the management API; node/rabbitmq-management.ts has it. */
export interface Management {
  putVhost(vhost: string): Promise<void>;
  putUser(name: string, passwordHash: string): Promise<void>;
  putRights(user: string, vhost: string, rights: BrokerRights): Promise<void>;
  deleteUser(name: string): Promise<void>;
  closeConnections(user: string): Promise<void>;
}

/** Users are made at the broker. */
export function provisionedAccounts(management: Management): Accounts {
  return {
    makeVhost: (name) => management.putVhost(name),
    async makeUser(name, passwordHash, vhost, rights) {
      await management.putUser(name, passwordHash);
      await management.putRights(name, vhost, rights);
    },
    removeUser: (name) => management.deleteUser(name),
  };
}

/** Users are known here, and RabbitMQ asks (routes/rabbitmq.ts). Without the management API somebody else makes virtual hosts. */
export function answeredAccounts(management: Management | undefined): Accounts {
  return {
    async makeVhost(name) {
      await management?.putVhost(name);
    },
    async makeUser() {},
    async removeUser(name) {
      await management?.closeConnections(name);
    },
  };
}
