/* errors.test.mjs - what is refused, with which status, and whether the sentence says where. */
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { fails, fresh, start } from './support/pare.mjs';

let pare;
let openai;

before(async () => {
  pare = await start();
  openai = pare.client();
});
after(() => pare.stop());

/* Sends a body as it is; what comes must be an error as OpenAI writes it. */
async function refused(body, statuses, param, path = '/v1/chat/completions') {
  const response = await pare.post(path, body);
  const text = await response.text();
  assert.ok([statuses].flat().includes(response.status), `${response.status}: ${text.slice(0, 300)}`);
  assert.match(response.headers.get('content-type'), /^application\/json/);
  const { error } = JSON.parse(text);
  assert.deepEqual(Object.keys(error).sort(), ['code', 'message', 'param', 'type']);
  assert.equal(error.param, param);
  assert.ok(error.message.length > 15, error.message);
  return error;
}

test('an unknown model: 404, with the models that there are', async () => {
  const error = await fails(openai.chat.completions.create(fresh({ model: 'gpt-9' })), 404);
  assert.equal(error.param, 'model');
  assert.equal(error.code, 'model_not_found');
  assert.equal(error.type, 'invalid_request_error');
  assert.match(error.message, /gpt-9.*storyteller/);
  await fails(openai.models.retrieve('gpt-9'), 404);
});

test('wrong types are named with their place', async () => {
  const user = { role: 'user', content: 'Hello.' };
  const wrong = [
    ['messages[2].content', { messages: [user, { role: 'assistant', content: 'Hi.' }, { role: 'user', content: 7 }] }],
    ['messages[1]', { messages: [user, 'text'] }],
    ['messages[0].role', { messages: [{ role: 'pirate', content: 'Arr.' }] }],
    ['messages[0].content[1].text', { messages: [{ role: 'user', content: [{ type: 'text', text: 'a' }, { type: 'text', text: 1 }] }] }],
    ['messages', { messages: 'Hello.' }],
    ['messages', { messages: [] }],
    ['messages', { messages: undefined }],
    ['model', { model: 5 }],
    ['model', { model: undefined }],
    ['temperature', { temperature: 'hot' }],
    ['temperature', { temperature: 3 }],
    ['top_p', { top_p: 0 }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_tokens', { max_tokens: 1.5 }],
    ['stream', { stream: 'yes' }],
    ['stop', { stop: 5 }],
    ['stop[1]', { stop: ['a', ''] }],
    ['seed', { seed: 'x' }],
    ['n', { n: 3 }],
    ['top_logprobs', { top_logprobs: 3 }],
    ['stream_options', { stream_options: { include_usage: true } }],
    ['stream_options.include_usage', { stream: true, stream_options: { include_usage: 1 } }],
  ];
  for (const [param, more] of wrong) {
    await refused(fresh(more), 400, param);
  }
  await refused({ model: 'storyteller', prompt: 5 }, 400, 'prompt', '/v1/completions');
  await refused({ model: 'storyteller', prompt: ['a', 5] }, 400, 'prompt[1]', '/v1/completions');
  await refused({ model: 'storyteller', prompt: [1, -1] }, 400, 'prompt[1]', '/v1/completions');
  await refused({ model: 'storyteller', prompt: 'a', echo: true }, 400, 'echo', '/v1/completions');
});

test('what is no JSON, no UTF-8, no object or too deep: 400', async () => {
  await refused('{"model": "storyteller", "messages": [', 400, null);
  await refused('', 400, null);
  await refused('[]', 400, null);
  await refused(`{"model":"storyteller","messages":[],"a":${'['.repeat(70)}${']'.repeat(70)}}`, [400, 413], null);
  await refused('{"a":'.repeat(200000), [400, 413], null);
  const bad = Buffer.concat([Buffer.from('{"model":"storyteller","messages":[{"role":"user","content":"'),
    Buffer.from([0xc3, 0x28]), Buffer.from('"}]}')]);
  await refused(bad, 400, null);
});

test('64 levels are not too deep', async () => {
  const deep = `${'['.repeat(62)}${']'.repeat(62)}`;
  const response = await pare.chat(`{"model":"storyteller","max_tokens":1,"messages":[{"role":"user","content":"a"}],"metadata":${deep}}`);
  assert.equal(response.status, 200, await response.text());
});

test('a token id that the model does not have', async () => {
  const error = await refused({ model: 'storyteller', prompt: [999999999], max_tokens: 1 }, 400, null, '/v1/completions');
  assert.match(error.message, /999999999.*storyteller/);
});

test('a prompt longer than the context says both numbers', async () => {
  const error = await refused(fresh({ messages: [{ role: 'user', content: 'sea '.repeat(30000) }] }), 400, 'messages');
  assert.match(error.message, /\d+.*\d+/);
  assert.equal(error.code, 'context_length_exceeded');
});

test('a body of 33 MiB: 413; one of 31 MiB is read', async () => {
  const error = await refused('x'.repeat(33 << 20), 413, null);
  assert.match(error.message, /32 MiB/);
  await refused('x'.repeat(31 << 20), 400, null);
});

test('a large body on a connection that has answered before', async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const post = (body) => new Promise((resolve, reject) => {
    const request = http.request(`${pare.url}/v1/chat/completions`,
      { agent, method: 'POST', headers: { 'content-length': body.length }, timeout: 5000 },
      (response) => response.resume().on('end', () => resolve(response.statusCode)));
    request.on('error', reject).on('timeout', () => request.destroy(new Error('no answer')));
    request.end(body);
  });
  for (const size of [10, 70000, 2000000, 10]) {
    assert.equal(await post('x'.repeat(size)), 400, `${size} bytes`);
  }
  agent.destroy();
});

test('a body beyond all measure is refused before it has been sent', async () => {
  const status = await new Promise((resolve) => {
    const request = http.request(`${pare.url}/v1/chat/completions`,
      { method: 'POST', headers: { 'content-length': 1 << 30, 'content-type': 'application/json' } },
      (response) => {
        resolve(response.statusCode);
        request.destroy();
      });
    request.on('error', () => resolve('closed'));
    request.write('{');
  });
  assert.ok(status === 413 || status === 'closed', `${status}`);
});

test('wrong paths and methods', async () => {
  assert.equal((await pare.get('/v1/chat/completions')).status, 405);
  assert.equal((await pare.get('/v1/chat/completions')).headers.get('allow'), 'POST');
  assert.equal((await pare.post('/v1/nothing', '{}')).status, 404);
  assert.equal((await pare.get('/web/../../etc/passwd')).status, 404);
  assert.equal((await pare.get('/api/stats?window=soon')).status, 400);
});

test('refused requests are in the ledger, and nothing of them stays open', async () => {
  const response = await pare.chat(fresh({ model: 'gpt-9' }));
  const row = await pare.row(response.headers.get('x-request-id'));
  assert.equal(row.outcome, 'refused');
  assert.equal(row.status, 404);
  assert.equal(row.model, 'gpt-9');
  assert.equal((await pare.metrics()).get('pare_requests_in_flight'), 0);
});
