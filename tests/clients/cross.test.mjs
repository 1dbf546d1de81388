/* cross.test.mjs - the official openai client, asking OpenAI's API, Anthropic's and Google's through pare: the same program
 * text for all of them, but for the model's name. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { events, fails } from './support/pare.mjs';
import { ADA, COUNTS, GREETING, KEY, PNG, PNG_SAID, SIGNATURE, THOUGHT, WEATHER_ARGS, checkRow, person, providers, startCross, vectorOf,
  weather, words } from './support/cross.mjs';

let bed;
let client;

before(async () => {
  bed = await startCross();
  client = bed.pare.client(KEY);
});
after(() => bed.stop());

const tool = { type: 'function', function: weather };
const second = { type: 'function', function: { name: 'get_time' } };
const fresh = { headers: { 'cache-control': 'no-cache' } };

function ask(model, said, more = {}) {
  return { model, messages: [{ role: 'user', content: typeof said === 'string' ? words(said) : said }], ...more };
}

function checkUsage(usage, reasoning = 0) {
  assert.equal(usage.prompt_tokens, COUNTS.prompt);
  assert.equal(usage.completion_tokens, COUNTS.completion);
  assert.equal(usage.total_tokens, COUNTS.prompt + COUNTS.completion);
  assert.equal(usage.prompt_tokens_details.cached_tokens, COUNTS.cached);
  assert.equal(usage.completion_tokens_details?.reasoning_tokens ?? 0, reasoning);
}

/* Whole and as a stream (which the client puts together itself), as [message, finish_reason, usage]. */
async function both(body) {
  const whole = await client.chat.completions.create(body);
  const runner = client.chat.completions.stream({ ...body, stream_options: { include_usage: true } }, fresh);
  const streamed = await runner.finalChatCompletion();
  return [whole, streamed].map((c) => ({ ...c.choices[0], usage: c.usage }));
}

/* The chunks of a raw stream, without the one that has the usage alone. */
async function chunks(body) {
  const response = await bed.pare.chat({ ...body, stream: true }, { authorization: `Bearer ${KEY}`, 'cache-control': 'no-cache' });
  assert.equal(response.status, 200);
  const { data } = events(await response.text());
  assert.equal(data.at(-1), '[DONE]');
  return data.slice(0, -1).map((d) => JSON.parse(d)).filter((c) => c.choices.length > 0).map((c) => c.choices[0]);
}

/* A member of the deltas, put together: the client's helper knows no reasoning and keeps the last piece of it. */
async function streamed(body, name) {
  return (await chunks(body)).map((c) => c.delta[name] ?? '').join('');
}

for (const model of providers) {
  test(`${model}: a chat, whole and as a stream, with the usage of the invoice`, async () => {
    const { data, response } = await client.chat.completions.create(ask(model, 'Hello there')).withResponse();
    assert.equal(data.object, 'chat.completion');
    assert.equal(data.choices[0].message.content, GREETING);
    assert.equal(data.choices[0].finish_reason, 'stop');
    checkUsage(data.usage);
    assert.equal(response.headers.get('x-pare-answered-by'), `remote:${model}`);
    await checkRow(bed.pare, response.headers.get('x-request-id'));
    const [, streamed] = await both(ask(model, 'Hello there'));
    assert.equal(streamed.message.content, GREETING);
    checkUsage(streamed.usage);
    const parts = await chunks(ask(model, 'Hello there'));
    assert.equal(parts[0].delta.role, 'assistant');
    assert.ok(parts.filter((p) => p.delta.content).length > 3, 'piece by piece');
    assert.equal(parts.filter((p) => p.finish_reason).length, 1);
  });

  test(`${model}: system and developer messages arrive as instructions`, async () => {
    for (const role of ['system', 'developer']) {
      const body = ask(model, 'echo the system');
      body.messages.unshift({ role, content: 'Be kind.' });
      for (const { message } of await both(body)) assert.equal(message.content, 'System: Be kind.');
    }
  });

  test(`${model}: a tool is called, gets its result, and the answer speaks of it`, async () => {
    const body = ask(model, 'What is the weather? Speak loud', { tools: [tool] });
    for (const { message, finish_reason, usage } of await both(body)) {
      assert.equal(finish_reason, 'tool_calls');
      checkUsage(usage);
      assert.equal(message.content, 'I will look.');
      const [call] = message.tool_calls;
      assert.equal(call.function.name, 'get_weather');
      assert.deepEqual(JSON.parse(call.function.arguments), WEATHER_ARGS);
      const next = await client.chat.completions.create({ ...body,
        messages: [...body.messages, message, { role: 'tool', tool_call_id: call.id, content: `21 degrees ${words('')}` }] });
      assert.match(next.choices[0].message.content, /^The tool says: 21 degrees/);
    }
  });

  test(`${model}: two calls at once, each with its result; required, named and none`, async () => {
    const body = ask(model, 'Tell me both weather and time', { tools: [tool, second], tool_choice: 'required' });
    for (const { message } of await both(body)) {
      assert.deepEqual(message.tool_calls.map((c) => c.function.name), ['get_weather', 'get_time']);
      assert.equal(new Set(message.tool_calls.map((c) => c.id)).size, 2);
      const results = message.tool_calls.map((c) => ({ role: 'tool', tool_call_id: c.id, content: words(c.function.name) }));
      const next = await client.chat.completions.create({ ...body, tool_choice: 'auto', messages: [...body.messages, message, ...results] });
      assert.match(next.choices[0].message.content, /^The tool says: get_weather.* and get_time/);
    }
    const named = ask(model, 'Hello', { tools: [tool, second], tool_choice: { type: 'function', function: { name: 'get_time' } } });
    for (const { message } of await both(named)) assert.deepEqual(message.tool_calls.map((c) => c.function.name), ['get_time']);
    const none = ask(model, 'What is the weather?', { tools: [tool], tool_choice: 'none' });
    for (const { message } of await both(none)) assert.equal(message.content, GREETING);
  });

  test(`${model}: the client's own tool runner`, async () => {
    const got = [];
    const runner = client.chat.completions.runTools(ask(model, 'What is the weather?', {
      tools: [{ type: 'function', function: { ...weather, parse: JSON.parse, function: (args) => {
        got.push(args);
        return words('sunny');
      } } }],
    }));
    assert.match(await runner.finalContent(), /^The tool says: sunny/);
    assert.deepEqual(got, [WEATHER_ARGS]);
  });

  test(`${model}: structured output`, async () => {
    const response_format = { type: 'json_schema', json_schema: { name: 'person', strict: true, schema: person } };
    for (const { message, finish_reason } of await both(ask(model, 'Who was first?', { response_format }))) {
      assert.deepEqual(JSON.parse(message.content), ADA);
      assert.equal(finish_reason, 'stop');
    }
  });

  test(`${model}: images, as bytes and as an address`, async () => {
    const image = (url) => ({ type: 'image_url', image_url: { url } });
    const text = () => ({ type: 'text', text: words('What is this?') });
    for (const { message } of await both(ask(model, [text(), image(`data:image/png;base64,${PNG}`)]))) {
      assert.equal(message.content, PNG_SAID);
    }
    for (const { message } of await both(ask(model, [text(), image('https://example.com/a.png')]))) {
      assert.equal(message.content, 'I see https://example.com/a.png of 0 bytes.');
    }
  });

  test(`${model}: reasoning is shown, counted, and given back where it is signed`, async () => {
    const body = ask(model, 'What is the weather?', { reasoning_effort: 'low', tools: [tool] });
    for (const { message, usage } of await both(body)) {
      checkUsage(usage, COUNTS.reasoning);
      message.reasoning_content = await streamed(body, 'reasoning_content');
      assert.equal(message.reasoning_content, THOUGHT);
      if (model !== 'openai') assert.equal(message.reasoning_signature, SIGNATURE);
      const next = await client.chat.completions.create({ ...body,
        messages: [...body.messages, message, { role: 'tool', tool_call_id: message.tool_calls[0].id, content: words('mild') }] });
      assert.match(next.choices[0].message.content, /^The tool says: mild/);
      assert.equal(next.choices[0].message.reasoning_content, THOUGHT); /* it may think on, since it has its thought back */
    }
    const row = (await bed.pare.stats('1h', { authorization: `Bearer ${KEY}` })).recent.find((r) => r.model === model);
    assert.equal(row.outcome, 'ok');
  });

  test(`${model}: limits, stops and sampling arrive, and a short answer says so`, async () => {
    const body = ask(model, 'Tell it at length', { max_completion_tokens: 77, temperature: 0.5, top_p: 0.9, stop: ['END', 'STOP'] });
    for (const { message, finish_reason } of await both(body)) {
      assert.equal(finish_reason, 'length');
      assert.equal(message.content, 'Once upon');
      const sent = bed.up[model].last.body;
      const config = sent.generationConfig ?? sent;
      assert.equal(config.max_tokens ?? config.max_completion_tokens ?? config.maxOutputTokens, 77);
      assert.equal(config.temperature, 0.5);
      assert.equal(config.top_p ?? config.topP, 0.9);
      assert.deepEqual(config.stop ?? config.stop_sequences ?? config.stopSequences, ['END', 'STOP']);
    }
  });

  test(`${model}: errors of the provider, as the client knows them`, async () => {
    const refused = async (what, status, kind) => {
      for (const stream of [false, true]) {
        const error = await fails(client.chat.completions.create(ask(`${model}-${what}`, 'Hello', { stream })), status);
        assert.ok(error instanceof kind, `${error}`);
        assert.ok(error.error.message.length > 10);
        assert.equal(error.headers.get('retry-after'), what === 'busy' ? '17' : null);
      }
    };
    await refused('busy', 429, OpenAI.RateLimitError);
    await refused('denied', 401, OpenAI.AuthenticationError);
    await refused('refused', 400, OpenAI.BadRequestError);
    await refused('broken', 500, OpenAI.InternalServerError);
    const error = await fails(client.chat.completions.create(ask(`${model}-refused`, 'Hello')), 400);
    assert.match(error.message, /too witty/);
  });
}

test('members that cannot be carried: 400 with the name; with drop_unsupported the others go on and these are listed', async () => {
  const cases = [
    ['anthropic', { seed: 7 }, 'seed'],
    ['anthropic', { n: 2 }, 'n'],
    ['anthropic', { frequency_penalty: 0.5 }, 'frequency_penalty'],
    ['anthropic', { logit_bias: { 50: 1 } }, 'logit_bias'],
    ['anthropic', { logprobs: true }, 'logprobs'],
    ['anthropic', { response_format: { type: 'json_object' } }, 'response_format'],
    ['gemini', { logit_bias: { 50: 1 } }, 'logit_bias'],
    ['gemini', { verbosity: 'low' }, 'verbosity'],
    ['gemini', { x_unknown: true }, 'x_unknown'],
  ];
  const before = Object.values(bed.up).map((u) => u.requests.length);
  for (const [model, more, name] of cases) {
    const error = await fails(client.chat.completions.create(ask(model, 'Hello', more)), 400);
    assert.equal(error.param, name);
    assert.match(error.message, new RegExp(`${name}.*cannot be carried`));
  }
  assert.deepEqual(Object.values(bed.up).map((u) => u.requests.length), before, 'no provider was asked');
  const dropping = await startCross('drop_unsupported: true');
  try {
    const other = dropping.pare.client(KEY);
    for (const [model, more, name] of cases) {
      const { data, response } = await other.chat.completions.create(ask(model, 'Hello', more)).withResponse();
      assert.equal(data.choices[0].message.content, GREETING);
      assert.equal(response.headers.get('x-pare-dropped'), name);
    }
  } finally {
    await dropping.stop();
  }
});

test('hints change no answer: they are left out without being asked for, and listed', async () => {
  for (const model of ['anthropic', 'gemini']) {
    const { data, response } = await client.chat.completions.create(ask(model, 'Hello',
      { metadata: { a: 'b' }, store: true, prompt_cache_key: 'x' })).withResponse();
    assert.equal(data.choices[0].message.content, GREETING);
    const dropped = response.headers.get('x-pare-dropped').split(', ').sort();
    assert.deepEqual(dropped, ['metadata', 'prompt_cache_key', 'store']);
  }
});

test('embeddings: of OpenAI and of Google, as numbers and as base64; where there are none, a sentence', async () => {
  for (const model of ['openai', 'gemini']) {
    for (const encoding_format of [undefined, 'float', 'base64']) {
      const input = [words('a'), words('some longer text')];
      const answer = await client.embeddings.create({ model: `${model}-embedding`, input, encoding_format });
      const vectors = answer.data.map((d) => (typeof d.embedding === 'string' ?
        [...new Float32Array(Uint8Array.from(Buffer.from(d.embedding, 'base64')).buffer)] : d.embedding));
      assert.equal(answer.object, 'list');
      assert.ok(answer.usage.prompt_tokens > 0);
      input.forEach((text, i) => {
        const expected = vectorOf(text);
        const length = model === 'gemini' ? Math.hypot(...expected) : 1; /* vectors there have no set length; here they have 1 */
        expected.forEach((x, k) => assert.ok(Math.abs(vectors[i][k] - x / length) < 1e-5, `${vectors[i]} for ${expected}`));
      });
    }
  }
  const none = await fails(client.embeddings.create({ model: 'anthropic', input: 'x' }), 400);
  assert.match(none.message, /Anthropic/);
});

test('what is not known here, and who: 404, 401, and 400 for a body that is wrong', async () => {
  assert.equal((await fails(client.chat.completions.create(ask('nobody', 'Hello')), 404)).param, 'model');
  await fails(bed.pare.client('wrong').chat.completions.create(ask('gemini', 'Hello')), 401);
  for (const model of providers) {
    const wrong = await fails(client.chat.completions.create({ model, messages: [{ role: 'user', content: 5 }] }), 400);
    assert.match(wrong.param, /^messages\[0\]/);
  }
});
