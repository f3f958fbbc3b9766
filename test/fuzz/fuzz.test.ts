// A short slice of `npm run fuzz`, the same in every run.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { testSeed } from '../helpers/random.ts';
import { Fuzzer } from './fuzzer.ts';
import { TARGETS } from './targets.ts';

const INPUTS = 12_000;

const test = suite('fuzz');
const seed = testSeed();

for (const target of TARGETS) {
  test(`${target.name}: ${INPUTS} changed files end in a layout or in an error that says where`, async () => {
    const fuzzer = new Fuzzer(target, seed);
    for (const bytes of target.seeds()) await fuzzer.add(bytes);
    while (fuzzer.runs < INPUTS) await fuzzer.step();
    const [first] = fuzzer.findings;
    if (first !== undefined) {
      const input = Buffer.from(first.bytes).toString('base64').slice(0, 4_000);
      const text = first.error instanceof Error ? first.error.stack : String(first.error);
      assert.unreachable(`input ${first.run}: ${text}\n${input}`);
    }
    assert.ok(fuzzer.outcomes >= 20, `only ${fuzzer.outcomes} different outcomes`);
    assert.ok(fuzzer.valid > 100, `only ${fuzzer.valid} valid inputs`);
  });
}

test.run();
