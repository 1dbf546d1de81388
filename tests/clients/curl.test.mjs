/* curl.test.mjs - the lines of the README that begin with curl, as they stand there, and the same questions in the other
 * APIs: what somebody types who has no client. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { events, root, start, until } from './support/pare.mjs';

const run = promisify(execFile);
const README_AT = 'http://127.0.0.1:7273';

let pare;

before(async () => {
  pare = await start();
});
after(() => pare.stop());

/* A line as a shell runs it, at the port of this test's program. */
async function shell(line) {
  const { stdout } = await run('/bin/sh', ['-c', line.replaceAll(README_AT, pare.url)], { timeout: 20000 });
  return stdout;
}

/* The commands of the README's blocks of shell that begin with curl; lines that end in a backslash go on. */
function readmeLines() {
  const text = readFileSync(join(root, 'README.md'), 'utf8').replaceAll('\\\n', ' ');
  return text.split('\n').filter((l) => l.startsWith('curl ')).map((l) => l.replace(/ +# .*$/, ''));
}

function split(reply) {
  const at = reply.indexOf('\r\n\r\n');
  return { head: reply.slice(0, at), body: reply.slice(at + 4) };
}

test('the lines of the README', async () => {
  const lines = readmeLines();
  assert.ok(lines.length >= 3);
  for (const line of lines) {
    const out = await shell(line);
    if (line.includes('"stream":true')) {
      const { data, comments } = events(out);
      assert.equal(data.at(-1), '[DONE]');
      assert.ok(comments.some((c) => c.startsWith('x-pare-cost-usd')));
    } else if (line.includes('/api/stats')) {
      await until('the rows are written', async () => JSON.parse(await shell(line)).requests >= 2); /* within a second */
    } else {
      assert.match(out, /^HTTP\/1.1 200|^\{/, line);
    }
  }
});

test('asked again, it comes from memory', async () => {
  const line = readmeLines().find((l) => l.includes('-si '));
  await shell(line);
  const { head, body } = split(await shell(line));
  assert.match(head, /x-pare-answered-by: recall\.exact/);
  assert.match(head, /x-pare-saved-usd: /);
  assert.match(JSON.parse(body).choices[0].message.content, /[a-z]{3}/);
});

const json = "-H 'Content-Type: application/json'";

test('the Messages API', async () => {
  const said = '"messages":[{"role":"user","content":"Tell me about a hare."}]';
  const ask = (path, body, more = '') =>
    shell(`curl -s ${more} ${README_AT}${path} ${json} -H 'x-api-key: none' -H 'anthropic-version: 2023-06-01' -d '${body}'`);
  const whole = JSON.parse(await ask('/v1/messages', `{"model":"storyteller","max_tokens":20,${said}}`));
  assert.equal(whole.type, 'message');
  assert.match(whole.content[0].text, /[a-z]{3}/);
  const stream = await ask('/v1/messages', `{"model":"storyteller","max_tokens":20,"stream":true,${said}}`, '-N');
  const names = [...stream.matchAll(/^event: (.*)$/gm)].map((m) => m[1]);
  assert.equal(names[0], 'message_start');
  assert.equal(names.at(-1), 'message_stop');
  const count = JSON.parse(await ask('/v1/messages/count_tokens', `{"model":"storyteller",${said}}`));
  assert.ok(count.input_tokens > 5);
  const wrong = JSON.parse(await ask('/v1/messages', '{"model":"storyteller"}'));
  assert.equal(wrong.error.type, 'invalid_request_error');
});

test('responses, completions, models, health; what is wrong says so', async () => {
  const post = async (path, body) => JSON.parse(await shell(`curl -s ${README_AT}${path} ${json} -d '${body}'`));
  const response = await post('/v1/responses', '{"model":"storyteller","input":"Hello","max_output_tokens":20}');
  assert.equal(response.object, 'response');
  const completion = await post('/v1/completions', '{"model":"storyteller","prompt":"Once","max_tokens":5}');
  assert.equal(completion.object, 'text_completion');
  assert.ok(JSON.parse(await shell(`curl -s ${README_AT}/v1/models`)).data.some((m) => m.id === 'storyteller'));
  assert.equal(JSON.parse(await shell(`curl -s ${README_AT}/health`)).status, 'ok');
  const broken = split(await shell(`curl -si ${README_AT}/v1/chat/completions ${json} -d '{"model":'`));
  assert.match(broken.head, /^HTTP\/1.1 400/);
  assert.ok(JSON.parse(broken.body).error.message.length > 15);
  assert.match(split(await shell(`curl -si ${README_AT}/v1/nothing`)).head, /^HTTP\/1.1 404/);
});
