/* responses.test.mjs - OpenAI's responses, asked by the official openai client: whole, as a stream, with tools, and as a
 * conversation that pare keeps. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fails, start } from './support/pare.mjs';
import { provider } from './support/upstream.mjs';

let pare;
let up;
let openai;

before(async () => {
  up = await provider();
  pare = await start({
    config: `
backends:
  up: {base_url: ${up.url}, timeouts: {connect: 2s, first: 1s, between: 1s, total: 20s}}
models:
  storyteller: {file: bundled}
  whole: {backend: up, model: up-whole, retries: 0}
  stream: {backend: up, model: up-stream, retries: 0}
  tools: {backend: up, model: up-tools, retries: 0}
keys:
  - {name: ann, key: ann-secret-key, space: team}
  - {name: bob, key: bob-secret-key, space: team}
`,
  });
  openai = pare.client('ann-secret-key');
});
after(async () => {
  await pare.stop();
  await up.stop();
});

let count = 0;
const fresh = (more) => ({ model: 'storyteller', input: `Once upon a time, number ${++count}`, max_output_tokens: 24, ...more });

function checkShape(response) {
  assert.match(response.id, /^resp_[0-9a-f]+$/);
  assert.equal(response.object, 'response');
  assert.ok(['completed', 'incomplete'].includes(response.status));
  assert.equal(response.error, null);
  const message = response.output.at(-1);
  assert.equal(message.type, 'message');
  assert.equal(message.role, 'assistant');
  assert.equal(message.content[0].type, 'output_text');
  assert.equal(response.output_text, message.content[0].text);
  const u = response.usage;
  assert.equal(u.total_tokens, u.input_tokens + u.output_tokens);
  assert.ok(u.input_tokens > 0 && u.output_tokens > 0);
}

test('a whole answer', async () => {
  const { data, response } = await openai.responses.create(fresh({ metadata: { a: 'b' }, instructions: 'Tell a story.' })).withResponse();
  checkShape(data);
  assert.match(data.output_text, /[a-z]{3}/);
  assert.equal(data.model, 'storyteller');
  assert.equal(data.instructions, 'Tell a story.');
  assert.deepEqual(data.metadata, { a: 'b' });
  assert.equal(data.store, true);
  if (data.status === 'incomplete') assert.equal(data.incomplete_details.reason, 'max_output_tokens');
  assert.equal(response.headers.get('x-pare-answered-by'), 'local:storyteller');
});

test('a stream says the same as the whole answer', async () => {
  const ask = fresh({ max_output_tokens: 256, temperature: 0 });
  const noCache = { headers: { 'Cache-Control': 'no-cache, no-store' } };
  const whole = await openai.responses.create(ask, noCache);
  const stream = openai.responses.stream(ask, noCache);
  const events = [];
  for await (const event of stream) events.push(event);
  const final = await stream.finalResponse();
  assert.equal(events[0].type, 'response.created');
  assert.deepEqual(events.map((e) => e.sequence_number), events.map((_, i) => i));
  const text = events.filter((e) => e.type === 'response.output_text.delta').map((e) => e.delta).join('');
  assert.equal(text, whole.output_text);
  const last = events.at(-1);
  assert.equal(last.type, `response.${whole.status}`);
  checkShape({ ...last.response, output_text: text });
  assert.equal(final.output.at(-1).content[0].text, text);
});

test('chat and responses share stored answers', async () => {
  const ask = fresh();
  const chat = await openai.chat.completions.create({ model: ask.model, max_tokens: 24, messages: [{ role: 'user', content: ask.input }] });
  const { data, response } = await openai.responses.create(ask).withResponse();
  assert.equal(response.headers.get('x-pare-answered-by'), 'recall.exact');
  assert.equal(data.output_text, chat.choices[0].message.content);
});

test('a provider of chat completions answers responses', async () => {
  for (const model of ['whole', 'stream']) {
    const ask = fresh({ model });
    if (model === 'whole') {
      checkShape(await openai.responses.create(ask));
      continue;
    }
    const response = await openai.responses.stream(ask).finalResponse();
    assert.equal(response.status, 'completed');
    assert.equal(response.output.at(-1).content[0].text, 'The tide comes in.');
  }
});

test('a function call, and its output in the next request', async () => {
  const tools = [{ type: 'function', name: 'find', parameters: { type: 'object', properties: {} }, strict: false }];
  const stream = openai.responses.stream(fresh({ model: 'tools', tools, store: false }));
  const done = [];
  for await (const event of stream) if (event.type === 'response.function_call_arguments.done') done.push(event);
  const final = await stream.finalResponse();
  const call = final.output.find((i) => i.type === 'function_call');
  assert.equal(call.name, 'find');
  assert.equal(done[0].arguments, call.arguments);
  JSON.parse(call.arguments);
  const next = await openai.responses.create(fresh({
    model: 'whole', tools, store: false,
    input: [{ role: 'user', content: 'find it' }, ...final.output, { type: 'function_call_output', call_id: call.call_id, output: 'found' }],
  }));
  checkShape(next);
});

test('a conversation goes on from the answer before', async () => {
  const first = await openai.responses.create(fresh());
  const second = await openai.responses.create({ model: 'storyteller', input: 'And then?', max_output_tokens: 16, previous_response_id: first.id });
  assert.equal(second.previous_response_id, first.id);
  assert.ok(second.usage.input_tokens > first.usage.input_tokens);
  /* The same, sent whole. */
  const whole = await openai.responses.create({
    model: 'storyteller', max_output_tokens: 16,
    input: [{ role: 'user', content: `Once upon a time, number ${count}` }, ...first.output, { role: 'user', content: 'And then?' }],
  });
  assert.equal(whole.usage.input_tokens, second.usage.input_tokens);
  assert.equal(whole.output_text, second.output_text);
});

test('kept answers can be read and deleted by their owner alone', async () => {
  const bob = pare.client('bob-secret-key');
  const ask = fresh();
  const made = await openai.responses.create(ask);
  const read = await openai.responses.retrieve(made.id);
  assert.deepEqual(read.output, made.output);
  const items = [];
  for await (const item of openai.responses.inputItems.list(made.id)) items.push(item);
  assert.equal(items.length, 1);
  assert.deepEqual(items[0].content, [{ type: 'input_text', text: ask.input }]);
  await fails(bob.responses.retrieve(made.id), 404);
  await fails(bob.responses.delete(made.id), 404);
  await fails(bob.responses.create(fresh({ previous_response_id: made.id })), 404);
  await openai.responses.delete(made.id);
  await fails(openai.responses.retrieve(made.id), 404);
  const error = await fails(openai.responses.create(fresh({ previous_response_id: made.id })), 404);
  assert.equal(error.param, 'previous_response_id');
  const unkept = await openai.responses.create(fresh({ store: false }));
  await fails(openai.responses.retrieve(unkept.id), 404);
  assert.equal((await pare.get(`/v1/responses/${unkept.id}`)).status, 401);
});

test('what is not supported is refused by name', async () => {
  for (const [more, param] of [
    [{ background: true }, 'background'],
    [{ conversation: 'conv_1' }, 'conversation'],
    [{ input: [{ type: 'item_reference', id: 'msg_1' }] }, 'input[0].type'],
    [{ tools: [{ type: 'web_search' }] }, 'tools[0].type'],
  ]) {
    const error = await fails(openai.responses.create(fresh(more)), 400);
    assert.equal(error.param, param);
  }
});
