/** The commands, their options, and the one place where errors become exit codes. */
import { Command, CommanderError, Help, Option } from 'commander';
import { STRATEGY_NAMES } from '../aggregate/strategies/index.ts';
import { ROUND_STATUSES } from '../wire/cambium.ts';
import { VERSION } from '../wire/version.ts';
import { aggregate } from './aggregate.ts';
import { createBranch, deleteBranch, listBranches, setBranch } from './branch.ts';
import { convert } from './convert.ts';
import { EXIT, exitCodeOf, UsageError } from './exit.ts';
import { inspect } from './inspect.ts';
import { createLeaf, listLeaves, revokeLeaf } from './leaf.ts';
import { merge } from './merge.ts';
import { listMetrics } from './metrics.ts';
import { printError } from './output.ts';
import {
  closeRound,
  discardRound,
  excludeLeaf,
  handDownRound,
  listRounds,
  retryRound,
  saveRound,
} from './round.ts';
import { changeRun, listRuns, resetModel, showRun, startRun, watchRun } from './run.ts';
import { strategyHelp } from './strategy.ts';
import { createTree, listTrees } from './tree.ts';

/**
 * Runs one command.
 *
 * @param args the words behind `cambium`
 * @returns the exit code of the process
 */
export async function main(args: readonly string[]): Promise<number> {
  const interrupt = new AbortController();
  const onSignal = () => {
    // A second signal ends the process at once, whatever it is doing.
    if (interrupt.signal.aborted) process.exit(EXIT.interrupted);
    interrupt.abort(new DOMException('interrupted', 'AbortError'));
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  // A reader that has seen enough (`cambium … | head`) is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(EXIT.done);
  });
  let exitCode: number = EXIT.done;
  const program = build(interrupt.signal, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync([...args], { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return EXIT.done; // --help, --version
    if (error instanceof CommanderError && error.code === 'commander.help') return EXIT.usage; // no command: help is out
    const ours = error instanceof CommanderError ? new UsageError(sentenceOf(error, args)) : error;
    // Behind `--` stand the words of another program.
    const own = args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
    printError(ours, { json: own.includes('--json'), verbose: own.includes('--verbose') });
    return exitCodeOf(ours);
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}

/** What commander says, and what somebody who left out `--` has to do. */
function sentenceOf({ code, message }: CommanderError, args: readonly string[]): string {
  const sentence = message.replace(/^error: /, '');
  if (code !== 'commander.unknownOption' || args[0] !== 'join' || args.includes('--')) return sentence;
  return `${sentence}; the program and its options stand behind --`;
}

function build(signal: AbortSignal, setExitCode: (code: number) => void): Command {
  const program = new Command('cambium')
    .description('Federated averaging: exact weighted means of weight files, a server and its leaves')
    .version(VERSION)
    .exitOverride()
    .configureOutput({ outputError() {} }) // printed once, in main
    .configureHelp({
      // That an option is off, or a list empty, needs no words.
      optionDescription: (option) =>
        new Help().optionDescription(option).replace(/ \(default: (?:false|\[\])\)$/, ''),
    })
    .showHelpAfterError(false);

  const command = (parent: Command, usage: string, description: string) =>
    parent
      .command(usage)
      .description(description)
      .option('--json', 'print JSON for programs', false)
      .option('--verbose', 'print the causes of an error', false);

  command(program, 'inspect <files...>', 'show what weight files hold and where')
    .option('--stats', 'read the elements: minimum, maximum, mean, NaN, SHA-256', false)
    .option('--no-digest', 'leave SHA-256 out of the statistics')
    .action(async (files, options) => setExitCode(await inspect(files, options)));

  command(program, 'aggregate <files...>', 'average weight files into a weight file')
    .requiredOption('-o, --output <file>', 'the file to write')
    .option(
      '--weights <list>',
      'weightings in the order of the files, for example 120,80 (default: from the files)',
    )
    .option('--ids <list>', 'ids in the order of the files (default: their paths)')
    .option('--strategy <name[:key=number,…]>', `the rule: ${STRATEGY_NAMES.join(', ')}`, 'mean')
    .option('--per-leaf <list>', 'local steps for fednova, staleness for buffered, in the order of the files')
    .option('--model <file>', 'the global model, for rules that refer to one and for differences to it')
    .option('--differences', 'the files are differences to the model: their average is added to it', false)
    .option('--state <file>', 'the state of a server optimiser, made by the first round')
    .option('--names <list>', "names for the output's tensors, separated by commas")
    .option('--threads <n>', 'threads that share the work (default: all processors)')
    .option(
      '--format <name>',
      'npy, npy-object, npz, safetensors or torch (default: from the name of the output, else as the inputs)',
    )
    .option('--non-finite <policy>', 'NaN and infinity: reject or propagate', 'reject')
    .option('--compress', 'deflate the arrays of an .npz', false)
    .option('--align', 'put the elements of an object array at multiples of 64 bytes', false)
    .option('--partial', 'write the exact sum instead of the mean: merge goes on from it', false)
    .addHelpText('after', strategyHelp)
    .action((files, options) => aggregate(files, { ...options, signal }));

  command(program, 'merge <inputs...>', 'add weight files and exact partial sums, or take sums out again')
    .requiredOption('-o, --output <file>', 'the file to write; *.partial.safetensors is a partial sum')
    .option('--without <sum>', 'a partial sum whose leaves are taken out (repeatable)', collect, [])
    .option('--partial', 'write a partial sum whatever the name of the output', false)
    .option(
      '--format <name>',
      'of a mean: npy, npy-object, npz, safetensors or torch (default: from the name of the output)',
    )
    .option('--threads <number>', 'threads that share the work (default: all processors)')
    .option('--non-finite <policy>', 'NaN and infinity: reject or propagate', 'reject')
    .option('--compress', 'deflate the arrays of an .npz', false)
    .option('--align', 'put the elements of an object array at multiples of 64 bytes', false)
    .action((files, options) => merge(files, { ...options, signal }));

  command(program, 'convert <input> <output>', 'write a weight file in another format')
    .option(
      '--format <name>',
      'npy, npy-object, npz, safetensors or torch (default: from the name of the output)',
    )
    .option('--weighting <number>', 'the weighting of the output (default: that of the input)')
    .option('--void16 <dtype>', 'take anonymous two-byte elements for bfloat16')
    .option(
      '--quantise <kind>',
      'an encoded update: float32 as int8, int8-block[:N] (N elements to a scale), float16 or bfloat16',
    )
    .option('--top-k <share>', 'an encoded update: the largest elements only, a share above 0, at most 1')
    .option('--difference-to <model>', 'an encoded update: the difference to this model')
    .option('--residual <file>', 'what earlier updates left over: added, and written anew')
    .option('--add-to <model>', 'the input is a difference: add it to this model')
    .option('--compress', 'deflate the arrays of an .npz', false)
    .option('--align', 'put the elements of an object array at multiples of 64 bytes', false)
    .action((input, output, options) => convert(input, output, { ...options, signal }));

  command(program, 'serve', 'run the aggregation server')
    .option('--config <file>', 'settings as JSON; options and CAMBIUM_… variables win over it')
    .option('--data <dir>', 'data directory (default ./cambium-data)')
    .option('--host <address>', 'address to listen on (default 127.0.0.1)')
    .option('--port <number>', 'port, 0 for a free one (default 8740)')
    .option('--tls-cert <file>', 'certificate chain, PEM')
    .option('--tls-key <file>', 'private key, PEM')
    .option('--behind-proxy <address>', 'believe forwarded headers from this address only')
    .option('--public-url <url>', 'how leaves reach the server, for absolute links')
    .option('--cors-origin <list>', 'origins of pages that may call (default none)')
    .option('--max-upload <bytes>', 'largest upload (default 2147483648)')
    .option('--keep-updates <rounds>', 'rounds whose updates are kept (default 1)')
    .option('--broker <url>', 'RabbitMQ for clients of BranchKey: amqp(s)://user:password@host:port')
    .option('--broker-management <url>', 'its management API: http(s)://host:15672')
    .option('--broker-auth <way>', 'provision: users are made there; http: it asks this server')
    .option('--broker-ca <file>', 'authorities of its certificate, PEM')
    .option('--broker-public-url <url>', 'how leaves reach it (default: as this server does)')
    // The server and its libraries are loaded when they are needed: they take longer to load than many a command to run.
    .action(async (options) => (await import('./serve.ts')).serve({ ...options, signal }));

  const remote = (parent: Command, usage: string, description: string) =>
    command(parent, usage, description)
      .option('--server <url>', 'the server (default: CAMBIUM_SERVER, else operator.json)')
      .option('--token <token>', 'the operator token (default: CAMBIUM_TOKEN, else operator.json)')
      .addOption(
        new Option('--data <dir>', 'data directory whose operator.json is read')
          .env('CAMBIUM_DATA')
          .default('./cambium-data'),
      );

  const tree = program.command('tree').description('trees: federations with an owner');
  remote(tree, 'create <name>', 'create a tree').action((name, options) =>
    createTree(name, { ...options, signal }),
  );
  remote(tree, 'list', 'list trees').action((options) => listTrees({ ...options, signal }));

  const branch = program
    .command('branch')
    .description('branches: groups of leaves that are averaged together');
  const policy = (target: Command) =>
    target
      .option('--minimum <number>', 'fewest updates with which a round may close before its target')
      .option(
        '--deadline <time>',
        'from the opening of a round until it closes with what is there: 90s, 10m, 2h',
      )
      .option('--grace <time>', 'from the minimum until it closes with what is there')
      .option(
        '--late <way>',
        'updates based on an older model: next (count them in the open round) or refuse',
      )
      .option('--replace', 'a leaf may replace its update until the round closes')
      .option('--no-replace', 'its first update counts')
      .option('--sample <number>', 'leaves that are asked in each round')
      .option('--seed <text>', 'what they are drawn by (default: the run)')
      .option('--strategy <name[:key=number,…]>', `the rule: ${STRATEGY_NAMES.join(', ')}`)
      .option('--non-finite <policy>', 'NaN and infinity: reject or propagate')
      .option('--keep <number>', 'aggregations that are kept, the newest (default: all)')
      .option('--partial-sums', 'leaves may send exact partial sums, as servers below do')
      .option('--no-partial-sums', 'they may not')
      .option('--upstream', 'rounds go up to another server ("relay"), whose aggregation comes down')
      .option('--no-upstream', 'rounds end here')
      .option(
        '--upstream-timeout <time>',
        'for how long a round waits for the server above before it fails (default: 1d; none: for ever)',
      )
      .addHelpText('after', strategyHelp);
  policy(remote(branch, 'create <name>', 'create a branch'))
    .requiredOption('--tree <id>', 'its tree')
    .requiredOption('--target <number>', 'updates that close a round')
    .option('--parent <id>', 'its parent branch')
    .action((name, options) => createBranch(name, { ...options, signal }));
  policy(remote(branch, 'set <branch>', 'change what is named; "none" takes a setting back'))
    .option('--target <number>', 'updates that close a round')
    .option('--parent <id>', 'its parent branch')
    .action((id, options) => setBranch(id, { ...options, signal }));
  remote(branch, 'delete <branch>', 'take a branch away; its aggregations stay').action((id, options) =>
    deleteBranch(id, { ...options, signal }),
  );
  remote(branch, 'list', 'list branches').action((options) => listBranches({ ...options, signal }));

  const leaf = program.command('leaf').description('leaves: the places where the data is');
  remote(leaf, 'create <name>', 'create a leaf and write its credentials')
    .requiredOption('--branch <id>', 'its branch')
    .option('-o, --out <file>', 'where to write the credentials (0600, never overwritten)')
    .addOption(
      new Option('--for <client>', 'print only what a client of that generation reads').choices([
        'branchkey-2.0',
        'branchkey-2.3',
        'branchkey-2.4',
        'branchkey-2.7',
      ]),
    )
    .action((name, options) => createLeaf(name, { ...options, signal }));
  remote(leaf, 'list', 'list the leaves of a branch')
    .requiredOption('--branch <id>', 'the branch')
    .action((options) => listLeaves({ ...options, signal }));
  remote(leaf, 'revoke <id>', "make a leaf's token useless").action((id, options) =>
    revokeLeaf(id, { ...options, signal }),
  );

  remote(leaf, 'exclude <id>', 'leave a leaf out of an open or failed round')
    .requiredOption('--round <id>', 'the round')
    .action((id, options) => excludeLeaf(id, { ...options, signal }));

  const run = program.command('run').description('runs of a branch');
  remote(run, 'start <branch>', 'start the run of a branch')
    .option('--model <file>', 'its first global model (default: the mean of the first round)')
    .action((id, options) => startRun(id, { ...options, signal }));
  remote(run, 'list <branch>', 'list runs, newest first').action((id, options) =>
    listRuns(id, { ...options, signal }),
  );
  for (const status of ['pause', 'stop'] as const) {
    remote(run, `${status} <branch>`, `${status} the run of a branch`).action((id, options) =>
      changeRun(id, status, { ...options, signal }),
    );
  }
  remote(run, 'reset-model <branch>', 'undo what the first update of the run fixed').action((id, options) =>
    resetModel(id, { ...options, signal }),
  );
  remote(run, 'show <branch>', 'show the run of a branch').action((id, options) =>
    showRun(id, { ...options, signal }),
  );
  remote(run, 'watch <branch>', 'follow the rounds of a branch')
    .option('--rounds <number>', 'end after so many finished rounds')
    .action((id, options) => watchRun(id, { ...options, signal }));

  const round = program.command('round').description('rounds of a run');
  remote(round, 'list <branch>', 'list rounds, newest first')
    .option('--run <number>', 'only those of this run')
    .addOption(new Option('--status <status>', 'only those in this state').choices(ROUND_STATUSES))
    .option('--limit <number>', 'only the newest (default, and at most, 1000)')
    .action((id, options) => listRounds(id, { ...options, signal }));
  remote(round, 'retry <round>', 'aggregate a failed round again').action((id, options) =>
    retryRound(id, { ...options, signal }),
  );
  remote(round, 'close <round>', 'close an open round with what is there').action((id, options) =>
    closeRound(id, { ...options, signal }),
  );
  remote(round, 'save <aggregation>', 'download an aggregation')
    .requiredOption('-o, --output <file>', 'the file to write (never overwritten)')
    .option('--branch <id>', 'then the argument is a round: the mean of this branch in it')
    .option('--sum', 'then the argument is a round: its exact partial sum for the server above', false)
    .action((id, options) => saveRound(id, { ...options, signal }));
  remote(round, 'hand-down <round> <file>', 'end a summed round with the aggregation of the server above')
    .option('--leaves <number>', 'how many went into it (default: those of the round)')
    .action((id, file, options) => handDownRound(id, file, { ...options, signal }));
  remote(round, 'discard <round>', 'give up an open, summed or failed round').action((id, options) =>
    discardRound(id, { ...options, signal }),
  );

  const metrics = program.command('metrics').description('performance metrics that leaves sent');
  remote(metrics, 'list <branch>', 'list them').action((id, options) =>
    listMetrics(id, { ...options, signal }),
  );

  const asLeaf = (usage: string, description: string) =>
    command(program, usage, description)
      .option(
        '--credentials <file>',
        'what "leaf create --out" wrote (default: CAMBIUM_CREDENTIALS, a path or JSON, or CAMBIUM_CREDENTIALS_FILE)',
      )
      .option('--server <url>', 'the server (default: from the credentials)')
      .option('--proxy <url>', 'http:, https: or socks5: on the way (needs the package undici)')
      .option('--ca <file>', 'authorities of its certificate, PEM (needs the package undici)')
      .option(
        '--broker <url>',
        'RabbitMQ that brings the notices: amqp(s)://host:port (default: from the credentials)',
      );

  asLeaf('join <program...>', 'be a leaf: a program trains, round after round')
    .usage(
      '[--credentials FILE] [options] -- PROGRAM [ARGUMENT | {global} | {update} | {metrics} | {round} | {run}]…',
    )
    .option('--format <name>', 'of the global model: npy-object, npz, safetensors or torch', 'npy-object')
    .option('--weighting <number>', 'samples, for updates that do not say (default: those are refused)')
    .option(
      '--on-failure <policy>',
      'when the program fails: retry (then skip), skip the round, stop',
      'retry',
    )
    .option('--retries <number>', 'further attempts in a round', '3')
    .option('--retry-delay <seconds>', 'pause before the first of them; it doubles', '5')
    .option('--timeout <seconds>', 'longest time of the program (default: none)')
    .option('--rounds <number>', 'end after so many updates')
    .option('--once', 'the same as --rounds 1, and fails where the round is not contributed', false)
    .option(
      '--folder <dir>',
      'where models, updates and the state are kept (default: beside the credentials)',
    )
    .action(async (words, options) => (await import('./join.ts')).join(words, { ...options, signal }));

  remote(
    program,
    'relay',
    'be a branch of this server as a leaf of another: sums go up, aggregations come down',
  )
    .option(
      '--credentials <file>',
      'the leaf above: what "leaf create --out" wrote there (default: CAMBIUM_CREDENTIALS or CAMBIUM_CREDENTIALS_FILE)',
    )
    .requiredOption('--branch <id>', 'the branch below, whose policy says --upstream')
    .option('--above <url>', 'the server above (default: from the credentials)')
    .option('--proxy <url>', 'on the way up, http:, https: or socks5: (needs the package undici)')
    .option('--ca <file>', 'authorities of the certificate above, PEM (needs the package undici)')
    .option('--follow', 'start the run below with that above, and anew when that begins anew', false)
    .option('--rounds <number>', 'end after so many rounds')
    .option('--once', 'the same as --rounds 1', false)
    .option('--folder <dir>', 'where files and state are kept (default: beside the credentials)')
    .action(async (options) => (await import('./relay.ts')).relay({ ...options, signal }));

  asLeaf('doctor', 'look at everything that a leaf needs, and say what is wrong and what to do')
    .option('--folder <dir>', 'where "join" would keep its files (default: beside the credentials)')
    .action(async (options) =>
      setExitCode(await (await import('./doctor.ts')).doctor({ ...options, signal })),
    );

  command(program, 'demo', 'run a whole federation on this machine: five leaves learn handwritten digits')
    .option('--rounds <number>', 'rounds', '10')
    .option('--leaves <number>', 'leaves', '5')
    .option('--seed <number>', 'seed of shards and weights', '1')
    .option('--data <dir>', 'where to keep the files (default: a new temporary folder)')
    .option('--serve', 'keep the server running at the end', false)
    .action(async (options) => {
      const { demo } = await import('./demo.ts');
      setExitCode(await demo({ ...options, signal }));
    });

  return program;
}

/** The values of an option that may be repeated. */
function collect(value: string, before: readonly string[]): string[] {
  return [...before, value];
}
