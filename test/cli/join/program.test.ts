/** What the words of `cambium join` become, and what of them is refused. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkPlaceholders, type ProgramFacts, runProgram } from '../../../src/cli/join/program.ts';
import { failsWith } from '../../helpers/errors.ts';

const test = suite('program of join');

const FACTS: ProgramFacts = { global: '/g', update: '/u', metrics: '/m', round: 7, run: 2 };

/** The words that a program gets. */
async function told(words: readonly string[]): Promise<unknown> {
  let line = '';
  await runProgram(
    [process.execPath, '-e', 'console.log(JSON.stringify(process.argv.slice(1)))', '--', ...words],
    FACTS,
    { signal: new AbortController().signal, onLine: (said) => (line = said) },
  );
  return JSON.parse(line);
}

test('placeholders are filled in, twofold braces are single ones, and other braces stay', async () => {
  const words: readonly (readonly [word: string, becomes: string])[] = [
    ['{global}', '/g'],
    ['--out={update}.{round}/{run}', '--out=/u.7/2'],
    ['{metrics}{metrics}', '/m/m'],
    ['{{global}}', '{global}'],
    ['{{print}} $1', '{print} $1'],
    [`cp $\{HOME}/x $\{global}`, `cp $\{HOME}/x $\{global}`],
    ['{"lr":{"a":0.1}}', '{"lr":{"a":0.1}}'],
    ['a{2,3}{0}{}{ x }{a,b}', 'a{2,3}{0}{}{ x }{a,b}'],
  ];
  const given = words.map(([word]) => word);
  checkPlaceholders(given);
  assert.equal(
    await told(given),
    words.map(([, becomes]) => becomes),
  );
});

test('a placeholder that there is none of is refused, and the sentence says which there are', async () => {
  for (const word of ['{globl}', '--in={global}/{Update}', '{global_model}', '{print}']) {
    const error = await failsWith('usage', async () => checkPlaceholders(['python3', word]));
    assert.match(error.message, /: there are \{global\}, \{update\}, \{metrics\}, \{round\}, \{run\};/);
    assert.match(error.message, /write \{\{\w+\}\}$/);
  }
});

test.run();
