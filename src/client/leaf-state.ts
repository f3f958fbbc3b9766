import type { RunStatus } from '../wire/cambium.ts';
import type { LeafIdentity } from './credentials.ts';

/** Who the leaf is and how its run stands, as the server told it last. */
export interface LeafState {
  identity: LeafIdentity;
  /** The server has accepted the token, and not refused it since. */
  isAuthenticated: boolean;
  runStatus: RunStatus | null;
  runNumber: number | null;
}
