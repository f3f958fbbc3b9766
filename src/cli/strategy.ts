/** An aggregation rule as an option of a command: `NAME:key=number,…`. */
import { DEFINITIONS } from '../aggregate/strategies/index.ts';
import type { StrategyBody } from '../wire/cambium.ts';
import { UsageError } from './exit.ts';

/** `NAME` or `NAME:key=number,…`. Throws UsageError. */
export function strategyOf(text: string): StrategyBody {
  const [name = '', ...rest] = text.split(':');
  const parameters: Record<string, number> = {};
  for (const part of rest.join(':').split(',')) {
    if (part === '') continue;
    const [, key, value] = /^([a-zA-Z]\w*)=(\S+)$/.exec(part) ?? [];
    if (key === undefined || Number.isNaN(Number(value))) {
      throw new UsageError(`--strategy ${text}: give parameters as name:key=number,key=number`);
    }
    if (Object.hasOwn(parameters, key)) throw new UsageError(`--strategy ${text}: ${key} is given twice`);
    parameters[key] = Number(value);
  }
  return { name, parameters };
}

/** What the rules are called, and their parameters with what they are unless given; `…` has to be given. */
export function strategyHelp(): string {
  const lines = DEFINITIONS.map(({ name, parameters, perLeaf }) => {
    const given = Object.entries(parameters).map(([key, value]) => `${key}=${value ?? '…'}`);
    const rule = [name, ...(given.length > 0 ? [given.join(',')] : [])].join(':');
    return `  ${perLeaf === undefined ? rule : `${rule}  (${perLeaf} of each leaf)`}`;
  });
  return ['', 'Rules with their parameters (… has to be given):', ...lines].join('\n');
}
