/** Who may do what at the broker, for a RabbitMQ that asks (its HTTP auth backend). Whatever is not known is denied. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { leafRights, ROOT_VHOST, rootRights, treeVhost } from '../../wire/broker.ts';
import { identifyLeaf } from '../domain/leaves.ts';
import { Refusal } from '../domain/refusal.ts';
import type { Database } from '../store/database.ts';
import { queuePassword } from '../tokens.ts';

export type BrokerPermission = 'configure' | 'write' | 'read';

export class BrokerRegister {
  readonly #db: Database;
  readonly #key: string;

  /** @param key of the passwords of branches (tokens.ts) */
  constructor(db: Database, key: string) {
    this.#db = db;
    this.#key = key;
  }

  /** Whether the name is a leaf's and the password one of its tokens, or a branch's with its own. */
  async mayLogIn(name: string, password: string): Promise<boolean> {
    if (await this.#isBranch(name)) return isSame(password, queuePassword(this.#key, name));
    try {
      await identifyLeaf(this.#db, name, password);
      return true;
    } catch (error) {
      if (error instanceof Refusal) return false;
      throw error;
    }
  }

  /** Whether the virtual host is the tree of the leaf, or `/` for a branch. */
  async mayEnter(name: string, vhost: string): Promise<boolean> {
    const home = await this.#homeOf(name);
    return home?.vhost === vhost;
  }

  async mayUse(name: string, vhost: string, thing: string, permission: BrokerPermission): Promise<boolean> {
    const home = await this.#homeOf(name);
    return home?.vhost === vhost && new RegExp(home.rights[permission]).test(thing);
  }

  async #homeOf(name: string) {
    if (await this.#isBranch(name)) return { vhost: ROOT_VHOST, rights: rootRights(name) };
    const leaf = await this.#db
      .selectFrom('leaves')
      .innerJoin('branches', 'branches.id', 'leaves.branch_id')
      .select('branches.tree_id')
      .where('leaves.id', '=', name)
      .where('leaves.revoked_at', 'is', null)
      .executeTakeFirst();
    return leaf && { vhost: treeVhost(leaf.tree_id), rights: leafRights(name) };
  }

  async #isBranch(name: string): Promise<boolean> {
    const row = await this.#db.selectFrom('branches').select('id').where('id', '=', name).executeTakeFirst();
    return row !== undefined;
  }
}

/** Compares in a time that does not depend on where texts differ. */
function isSame(actual: string, expected: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(actual), digest(expected));
}
