// uvu, saying why: by itself it prints no causes of errors, and drops what hooks throw.
import { inspect } from 'node:util';
import * as uvu from 'uvu';

/** A test whose errors carry what uvu prints under the message. */
const explained = (handler) => async (context) => {
  try {
    await handler(context);
  } catch (thrown) {
    const error = thrown instanceof Error ? thrown : new Error(inspect(thrown));
    if (error.cause !== undefined) error.details ??= inspect(error.cause);
    throw error;
  }
};

/** A way to register hooks whose errors are printed. */
const told = (add, when) => (hook) =>
  add(async (context) => {
    try {
      await hook(context);
    } catch (error) {
      console.log(`\n  FAIL  ${when}: ${inspect(error)}`);
      throw error;
    }
  });

function wrap(inner) {
  const test = (name, handler) => inner(name, explained(handler));
  const { before, after, only, skip, run } = inner;
  return Object.assign(test, {
    before: Object.assign(told(before, 'before'), { each: told(before.each, 'before each') }),
    after: Object.assign(told(after, 'after'), { each: told(after.each, 'after each') }),
    only: (name, handler) => only(name, explained(handler)),
    skip,
    run,
  });
}

export const suite = (...args) => wrap(uvu.suite(...args));
export const test = wrap(uvu.test);
