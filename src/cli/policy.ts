/** A branch's policy as options of a command. */
import type { PolicyBody } from '../wire/cambium.ts';
import { UsageError } from './exit.ts';
import { optional } from './settings.ts';
import { strategyOf } from './strategy.ts';

export interface PolicyOptions {
  readonly target?: string;
  readonly minimum?: string;
  readonly deadline?: string;
  readonly grace?: string;
  readonly late?: string;
  readonly replace?: boolean;
  readonly sample?: string;
  readonly seed?: string;
  readonly strategy?: string;
  readonly nonFinite?: string;
  readonly keep?: string;
  readonly partialSums?: boolean;
  readonly upstream?: boolean;
  readonly upstreamTimeout?: string;
}

/** The members that were named; `none` takes a minimum, a deadline, a grace, a sample or a limit back, or waits for ever. */
export function policyOf(options: PolicyOptions): Partial<PolicyBody> {
  const { late, nonFinite, partialSums, replace, seed, upstream } = options;
  if (late !== undefined && late !== 'next' && late !== 'refuse') {
    throw new UsageError(`--late ${late}: next or refuse`);
  }
  if (nonFinite !== undefined && nonFinite !== 'reject' && nonFinite !== 'propagate') {
    throw new UsageError(`--non-finite ${nonFinite}: reject or propagate`);
  }
  if (seed !== undefined && (options.sample === undefined || options.sample === 'none')) {
    throw new UsageError('--seed is of no use without --sample');
  }
  const entries: Partial<Record<keyof PolicyBody, unknown>> = {
    aggregation_target: optional(options.target, (text) => countOf('--target', text)),
    minimum: orNone(options.minimum, (text) => countOf('--minimum', text)),
    deadline_ms: orNone(options.deadline, (text) => durationOf('--deadline', text)),
    grace_ms: orNone(options.grace, (text) => durationOf('--grace', text)),
    late,
    replace,
    sample: orNone(options.sample, (text) => ({
      leaves: countOf('--sample', text),
      ...(seed === undefined ? {} : { seed }),
    })),
    strategy: optional(options.strategy, strategyOf),
    non_finite: nonFinite,
    keep_aggregations: orNone(options.keep, (text) => countOf('--keep', text)),
    partial_sums: partialSums,
    upstream,
    upstream_timeout_ms: orNone(options.upstreamTimeout, (text) => durationOf('--upstream-timeout', text)),
  };
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined));
}

function orNone<T>(text: string | undefined, read: (text: string) => T): T | null | undefined {
  return text === 'none' ? null : optional(text, read);
}

function countOf(option: string, text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new UsageError(`${option} ${text}: a whole number, at least 1`);
  return Number(text);
}

const UNITS = { ms: 1, s: 1000, m: 60_000, h: 3600_000, d: 24 * 3600_000 } as const;

/** `500ms`, `90s`, `10m`, `2h`, `1d`; in milliseconds. */
function durationOf(option: string, text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text) ?? [];
  const ms = Number(number) * UNITS[(unit ?? 's') as keyof typeof UNITS]; // one of them, by the pattern
  if (!Number.isSafeInteger(ms) || ms < 1) {
    throw new UsageError(`${option} ${text}: a time such as 90s, 10m or 2h`);
  }
  return ms;
}
