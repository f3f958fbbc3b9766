import { CambiumError, RefusedError } from '../errors.ts';
import type { Http } from '../transport/http.ts';
import { paths, type RunStatus } from '../wire/cambium.ts';
import { readAuthenticated, readRun } from './answers.ts';
import type { BranchKeySession } from './branchkey.ts';
import type { Emitter } from './client-events.ts';
import type { LeafIdentity } from './credentials.ts';
import type { RunDetails } from './dialect.ts';
import type { LeafState } from './leaf-state.ts';

/** Where there are no runs, one always goes on. */
const ALWAYS: RunDetails = {
  runStatus: 'start',
  runNumber: 0,
  round: null,
  updates: null,
  aggregationTarget: null,
  aggregationId: null,
  givenUpRound: null,
};

/** A clock that is further off is worth a word: certificates and signed links are good for minutes. */
const MOST_CLOCK_MS = 120_000;

/** Asks the server who the leaf is and how its run stands, in whatever dialect it speaks, and keeps what it told. */
export class Session {
  readonly http: Http;
  readonly state: LeafState;
  readonly #events: Emitter;
  #wasAuthenticated = false;
  #branchkey: Promise<BranchKeySession> | undefined;
  #isClockTold = false;

  constructor(http: Http, state: LeafState, events: Emitter) {
    this.http = http;
    this.state = state;
    this.#events = events;
  }

  /** The session of the older generations, whose code is loaded when one is spoken. */
  async branchkey(): Promise<BranchKeySession | undefined> {
    const { generation } = this.state.identity;
    if (generation === 'cambium') return undefined;
    this.#branchkey ??= import('./branchkey.ts').then(
      ({ BranchKeySession }) => new BranchKeySession(this.http, generation),
    );
    return this.#branchkey;
  }

  /** Asks the server who the token belongs to. */
  async identify(signal: AbortSignal): Promise<void> {
    const branchkey = await this.branchkey();
    this.state.identity = branchkey
      ? await this.#identifyTo(branchkey, signal)
      : await this.#askIdentity(signal);
    this.state.isAuthenticated = true;
    const { leafId, generation } = this.state.identity;
    this.#events.emit('session', { leafId, generation, isRenewal: this.#wasAuthenticated });
    this.#wasAuthenticated = true;
    this.#checkClock();
  }

  /** Does so only where the id of the leaf is not known yet, or that of its branch. */
  async requireIdentity(signal: AbortSignal): Promise<LeafIdentity> {
    if (this.state.identity.branchId === null || !this.state.identity.leafId) await this.identify(signal);
    return this.state.identity;
  }

  async askRun(signal: AbortSignal): Promise<RunDetails> {
    const { branchId, generation } = await this.requireIdentity(signal);
    // Clients up to 2.2 know no runs: they upload when they like.
    if (generation === 'login') return this.#setDetails(ALWAYS);
    const branchkey = await this.branchkey();
    if (branchkey) return this.#setDetails(await branchkey.askRun(branchId ?? '', signal));
    const target = paths.run(branchId ?? '');
    const body = readRun(await this.http.json({ method: 'GET', target, signal }));
    return this.#setDetails({
      runStatus: body.run_status,
      runNumber: body.run_number,
      round: body.round,
      updates: body.updates,
      aggregationTarget: body.aggregation_target,
      aggregationId: body.aggregation_id ?? null,
      givenUpRound: body.given_up_round ?? null,
    });
  }

  setRun(runStatus: RunStatus, runNumber: number): void {
    const isNews = runStatus !== this.state.runStatus || runNumber !== this.state.runNumber;
    this.state.runStatus = runStatus;
    this.state.runNumber = runNumber;
    if (isNews) this.#events.emit('run', { runStatus, runNumber });
  }

  /** Looks whether an error says that the token is no longer good. */
  learn(error: unknown): void {
    if (isTokenRefusal(error)) this.state.isAuthenticated = false;
  }

  async logOut(signal: AbortSignal): Promise<void> {
    const { generation, leafId } = this.state.identity;
    if (generation === 'login' && leafId !== '') {
      await (await this.branchkey())?.logOut(signal);
      this.state.identity = { ...this.state.identity, leafId: '', sessionToken: '' };
    }
    this.state.isAuthenticated = false;
  }

  #setDetails(details: RunDetails): RunDetails {
    this.setRun(details.runStatus, details.runNumber);
    return details;
  }

  async #askIdentity(signal: AbortSignal): Promise<LeafIdentity> {
    const body = readAuthenticated(await this.http.json({ method: 'GET', target: paths.me(), signal }));
    if (body.leaf_id !== this.state.identity.leafId) {
      throw new CambiumError(
        'credentials-conflict',
        `the token belongs to leaf ${body.leaf_id}, not ${this.state.identity.leafId}`,
      );
    }
    return {
      ...this.state.identity,
      leafName: body.leaf_name,
      branchId: body.branch_id,
      treeId: body.tree_id,
      userId: body.user_id,
    };
  }

  async #identifyTo(branchkey: BranchKeySession, signal: AbortSignal): Promise<LeafIdentity> {
    const identity = this.state.identity;
    if (identity.generation === 'login') return branchkey.logIn(identity, signal);
    if (identity.generation === 'basic') {
      const { tree_id: treeId, branch_id: branchId, user_id: userId } = await branchkey.authenticate(signal);
      return { ...identity, treeId, branchId, userId: userId ?? null };
    }
    // This generation has nothing that says who one is: the run tells whether the token is good.
    this.#setDetails(await branchkey.askRun(identity.branchId ?? '', signal));
    return identity;
  }

  #checkClock(): void {
    const { aheadMs } = this.http;
    if (this.#isClockTold || aheadMs === undefined || Math.abs(aheadMs) < MOST_CLOCK_MS) return;
    this.#isClockTold = true;
    const seconds = Math.round(Math.abs(aheadMs) / 1000);
    this.#events.emit('warning', {
      code: 'clock-off',
      message: `this machine's clock is ${seconds} s ${aheadMs > 0 ? 'ahead of' : 'behind'} the server's: set it`,
    });
  }
}

export function isTokenRefusal(error: unknown): boolean {
  return error instanceof RefusedError && error.status === 401;
}
