/* demo.test.mjs - what `make run` shows: tools/run-demo.sh from its start to Ctrl-C. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { after, test } from 'node:test';
import { program, root, sleep, temporary, until } from './support/pare.mjs';

const data = temporary();
after(() => rmSync(data, { recursive: true, force: true }));

function demo(listen) {
  const child = spawn('tools/run-demo.sh', [], {
    cwd: root,
    env: { ...process.env, PARE: program, PARE_LISTEN: listen, XDG_DATA_HOME: data },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const run = { child, out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (t) => {
    run.out += t;
  });
  child.stderr.setEncoding('utf8').on('data', (t) => {
    run.err += t;
  });
  run.ended = new Promise((resolve) => {
    child.on('close', (code, signal) => resolve({ code, signal }));
  });
  return run;
}

test('the examples are what they are meant to be', () => {
  const lines = readFileSync(new URL('../../examples/requests.jsonl', import.meta.url), 'utf8').trim().split('\n').map((l) => JSON.parse(l));
  const seen = new Set();
  const share = (of) => lines.filter(of).length / lines.length;
  assert.ok(lines.length >= 300);
  const again = share((l) => {
    const key = JSON.stringify({ ...l, stream: undefined, stream_options: undefined });
    return seen.has(key) || !seen.add(key);
  });
  assert.ok(again >= 0.4 && again <= 0.55, `repeats ${again}`);
  assert.ok(share((l) => l.stream) > 0.25 && share((l) => l.stream_options?.include_usage) > 0.1);
  const talks = share((l) => l.messages.some((m) => m.role === 'assistant'));
  assert.ok(talks >= 0.1 && talks <= 0.15, `conversations ${talks}`);
  for (const l of lines) {
    assert.equal(l.model, 'storyteller');
    assert.equal(l.messages[0].role, 'system');
    assert.equal(l.messages.at(-1).role, 'user');
    assert.ok(l.max_tokens >= 24 && l.max_tokens <= 64);
  }
});

test('the demo replays, reports, stays up, and ends on Ctrl-C', async () => {
  const run = demo('127.0.0.1:0');
  const line = await until('it has shown all', () => /Dashboard: (http:\S+)\/\n$/.exec(run.out), 240000);
  assert.match(run.out, /330 requests in /);
  assert.match(run.out, /recall\.exact +1\d\d /);
  assert.match(run.out, /saved: \$0\.0\d+/);
  assert.equal(run.err.includes('not every request'), false, run.err);
  const stats = await until('all is written', async () => {
    const s = await (await fetch(`${line[1]}/api/stats`)).json();
    return s.requests === 330 && s;
  });
  assert.equal(stats.by_outcome.ok, 330);
  const port = line[1].split(':').pop();
  const second = demo(`127.0.0.1:${port}`);
  assert.equal((await second.ended).code, 1);
  assert.match(second.err, new RegExp(`Port ${port} of 127.0.0.1 is in use`));
  run.child.kill('SIGINT');
  assert.deepEqual(await run.ended, { code: 0, signal: null });
  await assert.rejects(fetch(`${line[1]}/health`));
});

test('Ctrl-C while it starts or replays ends everything too', async () => {
  for (const ms of [300, 800, 1300]) {
    rmSync(`${data}/pare`, { recursive: true, force: true }); /* nothing remembered: the replay takes its time */
    const run = demo('127.0.0.1:0');
    await sleep(ms);
    run.child.kill('SIGINT');
    assert.deepEqual(await run.ended, { code: 0, signal: null }, run.err);
  }
});
