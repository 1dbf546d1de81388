/* anthropic.test.mjs - the official @anthropic-ai/sdk client, asking Anthropic's API, OpenAI's, Google's and the bundled
 * model through pare: the same program text for all of them, but for the model's name. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { startFamilies } from './support/models.mjs';
import { fails } from './support/pare.mjs';
import { invalid } from './support/schema.mjs';
import { ADA, COUNTS, GREETING, KEY, PNG, PNG_SAID, SIGNATURE, THOUGHT, WEATHER_ARGS, checkRow, person, providers, startCross, weather,
  words } from './support/cross.mjs';

let bed;
let client;

before(async () => {
  bed = await startCross();
  client = new Anthropic({ apiKey: KEY, baseURL: bed.pare.url, maxRetries: 0, timeout: 15000 });
});
after(() => bed.stop());

const tool = { name: weather.name, description: weather.description, input_schema: weather.parameters };
const second = { name: 'get_time', input_schema: { type: 'object', properties: {} } };

function ask(model, said, more = {}) {
  return { model, max_tokens: 1000, messages: [{ role: 'user', content: typeof said === 'string' ? words(said) : said }], ...more };
}

function checkUsage(usage) {
  assert.equal(usage.input_tokens, COUNTS.prompt - COUNTS.cached);
  assert.equal(usage.cache_read_input_tokens, COUNTS.cached);
  assert.equal(usage.output_tokens, COUNTS.completion);
}

/* Whole and as a stream, which must come to the same. Gives both. */
async function both(body) {
  const whole = await client.messages.create(body);
  const stream = client.messages.stream({ ...body, metadata: { user_id: 'streams' } }, { headers: { 'cache-control': 'no-cache' } });
  const kinds = [];
  let text = '';
  stream.on('streamEvent', (e) => kinds.push(e.type)).on('text', (t) => {
    text += t;
  });
  const streamed = await stream.finalMessage();
  assert.equal(kinds[0], 'message_start');
  assert.equal(kinds.at(-1), 'message_stop');
  assert.equal(text, streamed.content.filter((b) => b.type === 'text').map((b) => b.text).join(''));
  assert.equal(streamed.stop_reason, whole.stop_reason);
  return [whole, streamed];
}

for (const model of providers) {
  test(`${model}: a chat, whole and as a stream, with the usage of the invoice`, async () => {
    const body = ask(model, 'Hello there');
    const { data, response } = await client.messages.create(body).withResponse();
    assert.equal(data.type, 'message');
    assert.equal(data.role, 'assistant');
    assert.deepEqual(data.content.map(({ type, text }) => ({ type, text })), [{ type: 'text', text: GREETING }]);
    assert.equal(data.stop_reason, 'end_turn');
    checkUsage(data.usage);
    assert.equal(response.headers.get('x-pare-answered-by'), `remote:${model}`);
    await checkRow(bed.pare, response.headers.get('x-request-id'));
    const stream = client.messages.stream(ask(model, 'Hello there'));
    const final = await stream.finalMessage();
    assert.equal(final.content[0].text, GREETING);
    assert.equal(final.stop_reason, 'end_turn');
    checkUsage(final.usage);
    await checkRow(bed.pare, stream.response.headers.get('x-request-id'));
    assert.equal(bed.up[model].last.headers['x-api-key'], model === 'anthropic' ? 'provider-secret' : undefined);
  });

  test(`${model}: the system prompt arrives as one`, async () => {
    for (const system of ['Be kind.', [{ type: 'text', text: 'Be kind.', cache_control: { type: 'ephemeral' } }]]) {
      const [whole, streamed] = await both(ask(model, 'echo the system', { system }));
      assert.equal(whole.content[0].text, 'System: Be kind.');
      assert.equal(streamed.content[0].text, 'System: Be kind.');
    }
  });

  test(`${model}: a tool is called, gets its result, and the answer speaks of it`, async () => {
    const body = ask(model, 'What is the weather? Speak loud', { tools: [tool] });
    for (const answer of await both(body)) {
      assert.equal(answer.stop_reason, 'tool_use');
      checkUsage(answer.usage);
      const [text, call] = answer.content;
      assert.equal(text.text, 'I will look.');
      assert.equal(call.type, 'tool_use');
      assert.equal(call.name, 'get_weather');
      assert.deepEqual(call.input, WEATHER_ARGS);
      const next = await client.messages.create({
        ...body,
        messages: [...body.messages, { role: 'assistant', content: answer.content },
          { role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: `21 degrees ${words('')}` }] }],
      });
      assert.match(next.content[0].text, /^The tool says: 21 degrees/);
      assert.equal(next.stop_reason, 'end_turn');
    }
  });

  test(`${model}: two calls at once, one of which fails`, async () => {
    const body = ask(model, 'Tell me both weather and time', { tools: [tool, second], tool_choice: { type: 'any' } });
    for (const answer of await both(body)) {
      assert.deepEqual(answer.content.map((b) => b.name), ['get_weather', 'get_time']);
      assert.equal(new Set(answer.content.map((b) => b.id)).size, 2);
      const results = [
        { type: 'tool_result', tool_use_id: answer.content[0].id, content: [{ type: 'text', text: words('rain') }] },
        { type: 'tool_result', tool_use_id: answer.content[1].id, content: 'no clock', is_error: true },
      ];
      const next = await client.messages.create({ ...body, tool_choice: { type: 'auto' },
        messages: [...body.messages, { role: 'assistant', content: answer.content }, { role: 'user', content: results }] });
      assert.match(next.content[0].text, model === 'openai' ? /rain.* and .*no clock/ : /rain.* and error no clock/);
    }
  });

  test(`${model}: a named tool, and none at all`, async () => {
    const named = ask(model, 'Hello', { tools: [tool, second], tool_choice: { type: 'tool', name: 'get_time' } });
    assert.deepEqual((await client.messages.create(named)).content.map((b) => b.name), ['get_time']);
    const none = ask(model, 'What is the weather?', { tools: [tool], tool_choice: { type: 'none' } });
    assert.equal((await client.messages.create(none)).content[0].text, GREETING);
  });

  test(`${model}: the SDK's own tool runner, which would rather keep a thread`, async () => {
    const inputs = [];
    const run = async (input) => {
      inputs.push(input);
      return words('sunny');
    };
    const runner = client.beta.messages.toolRunner(ask(model, 'What is the weather?',
      { tools: [{ ...tool, type: 'custom', run, parse: (x) => x }], max_iterations: 3 }));
    const final = await runner;
    assert.match(final.content[0].text, /^The tool says: sunny/);
    assert.deepEqual(inputs, [WEATHER_ARGS]);
  });

  test(`${model}: structured output`, async () => {
    const format = { type: 'json_schema', schema: person };
    for (const answer of await both(ask(model, 'Who was the first programmer?', { output_config: { format } }))) {
      assert.deepEqual(JSON.parse(answer.content[0].text), ADA);
      assert.equal(answer.stop_reason, 'end_turn');
    }
  });

  test(`${model}: an image`, async () => {
    const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: PNG } };
    for (const answer of await both(ask(model, [image, { type: 'text', text: words('What is this?') }]))) {
      assert.equal(answer.content[0].text, PNG_SAID);
    }
  });

  test(`${model}: thinking, and a tool round that gives it back`, async () => {
    const body = ask(model, 'What is the weather?', { max_tokens: 4000, thinking: { type: 'enabled', budget_tokens: 2000 }, tools: [tool] });
    for (const answer of await both(body)) {
      const [thinking, call] = answer.content;
      assert.equal(thinking.type, 'thinking');
      assert.equal(thinking.thinking, THOUGHT);
      assert.equal(thinking.signature, model === 'openai' ? '' : SIGNATURE);
      assert.equal(call.type, 'tool_use');
      assert.equal(answer.usage.output_tokens, COUNTS.completion);
      assert.equal(answer.usage.output_tokens_details?.thinking_tokens, COUNTS.reasoning);
      const next = await client.messages.create({ ...body, messages: [...body.messages, { role: 'assistant', content: answer.content },
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: words('mild') }] }] });
      assert.equal(next.content[0].type, 'thinking');
      assert.match(next.content[1].text, /^The tool says: mild/);
    }
  });

  test(`${model}: an answer that its limit cut short`, async () => {
    for (const answer of await both(ask(model, 'Tell it at length'))) {
      assert.equal(answer.stop_reason, 'max_tokens');
      assert.equal(answer.content[0].text, 'Once upon');
    }
  });

  test(`${model}: errors of the provider, as the client knows them`, async () => {
    const refused = async (what, status, kind, type) => {
      for (const stream of [false, true]) {
        const error = await fails(client.messages.create(ask(`${model}-${what}`, 'Hello', { stream })), status);
        assert.ok(error instanceof kind, `${error}`);
        assert.equal(error.error.type, 'error');
        assert.equal(error.error.error.type, type);
        assert.equal(error.headers.get('retry-after'), what === 'busy' ? '17' : null);
        assert.match(error.headers.get('x-request-id'), /^[0-9a-f]{24}$/);
      }
    };
    await refused('busy', 429, Anthropic.RateLimitError, 'rate_limit_error');
    await refused('denied', 401, Anthropic.AuthenticationError, 'authentication_error');
    await refused('refused', 400, Anthropic.BadRequestError, 'invalid_request_error');
    await refused('broken', 500, Anthropic.InternalServerError, 'api_error');
  });
}

test('a member that cannot be carried: 400 with its name, and with drop_unsupported it is listed', async () => {
  const search = { type: 'web_search_20250305', name: 'web_search' };
  const body = (model) => ask(model, 'Hello', { tools: [search] });
  const before = Object.values(bed.up).map((u) => u.requests.length);
  const names = { openai: /tools\[0\]/, gemini: /tools\[0\]/ };
  for (const model of ['openai', 'gemini']) {
    const error = await fails(client.messages.create(body(model)), 400);
    assert.equal(error.error.error.type, 'invalid_request_error');
    assert.match(error.error.error.message, names[model]);
  }
  assert.deepEqual(Object.values(bed.up).map((u) => u.requests.length), before);
  const dropping = await startCross('drop_unsupported: true');
  try {
    const other = new Anthropic({ apiKey: KEY, baseURL: dropping.pare.url, maxRetries: 0 });
    for (const model of ['openai', 'gemini']) {
      const { data, response } = await other.messages.create(body(model)).withResponse();
      assert.equal(data.content[0].text, GREETING);
      assert.match(response.headers.get('x-pare-dropped'), names[model]);
    }
  } finally {
    await dropping.stop();
  }
});

test('requests that are wrong: 400, in the words of its API', async () => {
  const wrong = async (more, place) => {
    const error = await fails(client.messages.create(ask('anthropic', 'Hello', more)), 400);
    assert.equal(error.error.error.type, 'invalid_request_error');
    assert.ok(error.error.error.message.includes(place), error.message);
  };
  await wrong({ max_tokens: undefined }, 'max_tokens');
  await wrong({ messages: [] }, 'messages');
  await wrong({ messages: [{ role: 'user', content: [{ type: 'tool_result' }] }] }, 'messages[0].content[0].tool_use_id');
  await wrong({ temperature: 3 }, 'temperature');
  const missing = await fails(client.messages.create(ask('nobody', 'Hello')), 404);
  assert.equal(missing.error.error.type, 'not_found_error');
  const stranger = new Anthropic({ apiKey: 'wrong', baseURL: bed.pare.url, maxRetries: 0 });
  const denied = await fails(stranger.messages.create(ask('anthropic', 'Hello')), 401);
  assert.equal(denied.error.error.type, 'authentication_error');
  for (const path of ['/v1/messages', '/v1/messages/batches', '/v1/messages/count_tokens']) {
    const body = await (await bed.pare.get(path, { 'x-api-key': KEY })).json();
    assert.equal(body.type, 'error', path);
  }
});

test('what one client asked in its API, another gets from memory in its own', async () => {
  const said = words('Remember this');
  const older = { headers: { 'anthropic-version': '2023-06-01' } }; /* another version of the API is another question */
  const first = await client.messages.create(ask('gemini', [{ type: 'text', text: said }]), older);
  const before = bed.up.gemini.requests.length;
  const openai = await bed.pare.client(KEY).chat.completions.create(
    { model: 'gemini', max_tokens: 1000, messages: [{ role: 'user', content: said }] }).withResponse();
  assert.equal(openai.response.headers.get('x-pare-answered-by'), 'recall.exact');
  assert.equal(openai.data.choices[0].message.content, first.content[0].text);
  const { data, response } = await client.messages.create(ask('gemini', [{ type: 'text', text: said }]), older).withResponse();
  assert.equal(response.headers.get('x-pare-answered-by'), 'recall.exact');
  assert.equal(data.content[0].text, GREETING);
  assert.equal(data.usage.output_tokens, COUNTS.completion);
  const streamed = client.messages.stream(ask('gemini', [{ type: 'text', text: said }]), older);
  assert.equal((await streamed.finalMessage()).content[0].text, GREETING);
  assert.equal(bed.up.gemini.requests.length, before);
});

/* ---- the bundled model ---- */

test('the bundled model keeps no threads: the SDK sends the conversation', async () => {
  const thread = await fails(client.beta.messages.create(ask('storyteller', 'Hello', { thread: { type: 'create' } })), 400);
  assert.equal(thread.errorCode, 'thread_unsupported_request');
  const runner = client.beta.messages.toolRunner({ ...ask('storyteller', 'Hello'), max_tokens: 5, tools: [], max_iterations: 1 });
  assert.equal((await runner).content[0].type, 'text');
});

test('the bundled model: whole, as a stream, and counted by its own tokenizer', async () => {
  const body = ask('storyteller', 'Tell me about the sea', { max_tokens: 12, temperature: 0 });
  const { data, response } = await client.messages.create(body).withResponse();
  assert.equal(response.headers.get('x-pare-answered-by'), 'local:storyteller');
  assert.match(data.content[0].text, /[a-z]{3}/);
  assert.equal(data.stop_reason, 'max_tokens');
  assert.equal(data.usage.output_tokens, 12);
  const stream = client.messages.stream(body, { headers: { 'cache-control': 'no-cache' } });
  assert.equal((await stream.finalMessage()).content[0].text, data.content[0].text);
  const { data: count, response: how } = await client.messages.countTokens({ model: body.model, messages: body.messages }).withResponse();
  assert.equal(how.headers.get('x-pare-answered-by'), 'local:storyteller');
  const fresh = await client.messages.create(body, { headers: { 'cache-control': 'no-cache' } });
  assert.equal(count.input_tokens, fresh.usage.input_tokens + fresh.usage.cache_read_input_tokens);
});

test('models of our own call tools, think and keep to a schema in this API too', async () => {
  const own = await startFamilies(['hermes', 'think']);
  try {
    const local = new Anthropic({ apiKey: 'none', baseURL: own.url, maxRetries: 0 });
    const short = { type: 'object', properties: { city: { type: 'string', maxLength: 12 } }, required: ['city'], additionalProperties: false };
    const tools = [{ name: 'get_weather', input_schema: short }];
    for (const model of ['hermes', 'think']) {
      const body = ask(model, 'What is the weather?', { max_tokens: 1500, tools, tool_choice: { type: 'tool', name: 'get_weather' } });
      const stream = local.messages.stream(body);
      for (const answer of [await local.messages.create(body), await stream.finalMessage()]) {
        const call = answer.content.at(-1);
        assert.equal(answer.stop_reason, 'tool_use');
        assert.equal(call.name, 'get_weather');
        assert.deepEqual(invalid(short, call.input), []);
        assert.equal(answer.content.some((b) => b.type === 'thinking'), model === 'think');
        const next = await local.messages.create({ ...body, max_tokens: 8, tool_choice: { type: 'auto' }, messages: [...body.messages,
          { role: 'assistant', content: answer.content },
          { role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: 'rain' }] }] });
        assert.equal(next.stop_reason, 'max_tokens');
      }
    }
    const format = { type: 'json_schema', schema: short };
    const answer = await local.messages.create(ask('hermes', 'Where?', { max_tokens: 300, output_config: { format } }));
    assert.deepEqual(invalid(short, JSON.parse(answer.content[0].text)), []);
  } finally {
    await own.stop();
  }
});

test('count_tokens: models of providers are estimated; errors are its API\'s', async () => {
  const messages = [{ role: 'user', content: 'The quick brown fox jumps over the lazy dog.' }];
  const before = Object.values(bed.up).map((u) => u.requests.length);
  for (const model of providers) {
    const { data, response } = await client.messages.countTokens({ model, messages, system: 'Be brief.' }).withResponse();
    assert.equal(response.headers.get('x-pare-answered-by'), 'estimate');
    assert.ok(data.input_tokens >= 12 && data.input_tokens <= 30, `${data.input_tokens}`);
    const withTools = await client.messages.countTokens({ model, messages, tools: [tool] });
    assert.ok(withTools.input_tokens > data.input_tokens + 10, `${withTools.input_tokens}`);
  }
  assert.deepEqual(Object.values(bed.up).map((u) => u.requests.length), before);
  const long = (n) => ({ model: 'storyteller', messages: [{ role: 'user', content: 'once upon a time '.repeat(n) }] });
  assert.ok((await client.messages.countTokens(long(150))).input_tokens > 512); /* more than its context holds */
  const refused = async (body, status, type, other = client) => {
    const error = await fails(other.messages.countTokens(body), status);
    assert.equal(error.error.error.type, type);
    return error;
  };
  await refused({ model: 'nobody', messages }, 404, 'not_found_error');
  await refused({ model: 'storyteller', messages: 'hello' }, 400, 'invalid_request_error');
  await refused({ model: 'storyteller' }, 400, 'invalid_request_error');
  assert.match((await refused(long(100000), 400, 'invalid_request_error')).message, /the context of storyteller holds 512/);
  await refused({ model: 'storyteller', messages }, 401, 'authentication_error',
    new Anthropic({ apiKey: 'wrong', baseURL: bed.pare.url, maxRetries: 0 }));
  const rows = (await bed.pare.stats('1h', { 'x-api-key': KEY })).recent;
  assert.ok(rows.length > 0 && rows.every((r) => r.prompt_tokens < 500), 'counting is in no row of the ledger');
});

test('the list of models, in pages, and one of them', async () => {
  const all = [];
  for await (const model of client.models.list({ limit: 4 })) {
    assert.equal(model.type, 'model');
    assert.equal(model.display_name, model.id);
    assert.ok(!Number.isNaN(Date.parse(model.created_at)));
    all.push(model.id);
  }
  const openai = (await bed.pare.client(KEY).models.list()).data.map((m) => m.id);
  assert.deepEqual(all, openai);
  assert.ok(all.length > 10);
  const back = await client.models.list({ limit: 3, before_id: all[6] });
  assert.deepEqual(back.data.map((m) => m.id), all.slice(3, 6));
  assert.equal(back.has_more, true);
  assert.equal((await client.models.retrieve('storyteller')).id, 'storyteller');
  assert.equal((await fails(client.models.retrieve('nobody'), 404)).error.error.type, 'not_found_error');
  await fails(client.models.list({ limit: 0 }), 400);
  await fails(client.models.list({ after_id: 'nobody' }), 400);
});
