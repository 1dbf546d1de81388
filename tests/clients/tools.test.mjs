/* tools.test.mjs - tool calls, as the official openai client asks for them and reads them: Hermes and Qwen, Llama 3,
 * Mistral, a family whose own way no grammar can be made of, and models that reason first.
 *
 * The storyteller would never call a tool by itself: it is made to, so what is tested is the grammar, how calls are read
 * and how they are told. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fails, fresh } from './support/pare.mjs';
import { startFamilies } from './support/models.mjs';
import { invalid } from './support/schema.mjs';

const families = ['hermes', 'qwen3', 'llama3', 'mistral', 'coder', 'think', 'control'];
const noCache = { headers: { 'Cache-Control': 'no-cache, no-store' } };

let pare;
let openai;

before(async () => {
  pare = await startFamilies(families);
  openai = pare.client();
});
after(() => pare.stop());

function tool(name, properties, more = {}) {
  return {
    type: 'function',
    function: {
      name,
      description: `Does what ${name} does.`,
      parameters: { type: 'object', properties, required: Object.keys(properties), additionalProperties: false, ...more },
    },
  };
}

const weather = tool('get_weather', { city: { type: 'string', maxLength: 12 }, unit: { enum: ['C', 'F'] } });
const search = tool('search', { words: { type: 'array', items: { type: 'string', maxLength: 6 }, minItems: 1, maxItems: 2 },
  near: { anyOf: [{ type: 'null' }, { type: 'integer', minimum: 1, maximum: 50 }] } });
const tools = [weather, search];

function ask(model, more = {}) {
  return fresh({ model, tools, max_tokens: 1500, temperature: 1, seed: 3, ...more });
}

async function whole(body) {
  const answer = await openai.chat.completions.create(body, noCache);
  return { ...answer.choices[0], usage: answer.usage };
}

/* The deltas of a stream, put together as any client does. */
async function streamed(body) {
  const stream = await openai.chat.completions.create({ ...body, stream: true }, noCache);
  const out = { content: '', reasoning: '', calls: [], pieces: 0, finish_reason: null };
  for await (const { choices: [c] } of stream) {
    out.content += c?.delta.content ?? '';
    out.reasoning += c?.delta.reasoning_content ?? '';
    for (const d of c?.delta.tool_calls ?? []) {
      if (d.id) {
        assert.equal(d.index, out.calls.length, 'calls come one after another');
        assert.equal(d.type, 'function');
        assert.match(d.function.name, /^[a-z_]+$/);
        out.calls.push({ id: d.id, name: d.function.name, arguments: d.function.arguments });
      } else {
        assert.equal(d.index, out.calls.length - 1);
        assert.deepEqual(Object.keys(d.function), ['arguments']);
        out.calls[d.index].arguments += d.function.arguments;
        out.pieces++;
      }
    }
    out.finish_reason = c?.finish_reason ?? out.finish_reason;
  }
  return out;
}

/* Calls of these tools, with arguments that are valid under their schemas. */
function valid(calls, known = tools) {
  assert.ok(calls?.length > 0, 'no call');
  for (const { id, type, function: f } of calls) {
    const schema = known.find((t) => t.function.name === f.name)?.function.parameters ?? { type: 'object' };
    assert.ok(known.some((t) => t.function.name === f.name), f.name);
    assert.equal(type, 'function');
    assert.match(id, /^\w{9,}$/);
    assert.deepEqual(invalid(schema, JSON.parse(f.arguments)), [], f.arguments);
  }
  assert.equal(new Set(calls.map((c) => c.id)).size, calls.length, 'ids differ');
}

for (const model of families) {
  test(`${model}: tool_choice required brings calls, whole and as a stream`, async () => {
    const body = ask(model, { tool_choice: 'required' });
    const choice = await whole(body);
    valid(choice.message.tool_calls);
    assert.equal(choice.finish_reason, 'tool_calls');
    assert.equal(choice.message.content, null);
    const stream = await streamed(body);
    assert.equal(stream.finish_reason, 'tool_calls');
    assert.equal(stream.content, '');
    assert.deepEqual(stream.calls.map(({ name, arguments: a }) => [name, a]),
      choice.message.tool_calls.map(({ function: f }) => [f.name, f.arguments]));
    assert.ok(stream.pieces >= stream.calls.length);
    const reasons = ['think', 'control'].includes(model);
    assert.equal(choice.message.reasoning_content !== undefined, reasons);
    assert.equal(stream.reasoning, choice.message.reasoning_content ?? '');
    assert.equal(choice.usage.completion_tokens_details.reasoning_tokens > 0, reasons);
  });

  test(`${model}: a named tool is the one that is called, and with parallel_tool_calls false once`, async () => {
    for (const name of ['search', 'get_weather']) {
      const choice = await whole(ask(model,
        { tool_choice: { type: 'function', function: { name } }, parallel_tool_calls: false }));
      valid(choice.message.tool_calls);
      assert.deepEqual(choice.message.tool_calls.map((c) => c.function.name), [name]);
      assert.equal(choice.finish_reason, 'tool_calls');
    }
  });

  test(`${model}: tool_choice none and auto leave text alone`, async () => {
    for (const tool_choice of ['none', 'auto', undefined]) {
      const choice = await whole(ask(model, { tool_choice, max_tokens: 30 }));
      assert.equal(choice.message.tool_calls, undefined);
      assert.match(choice.message.content + (choice.message.reasoning_content ?? ''), /[a-z]{3}/);
    }
  });

  test(`${model}: the calls and their results go back to it`, async () => {
    const first = await whole(ask(model, { tool_choice: { type: 'function', function: { name: 'get_weather' } }, parallel_tool_calls: false }));
    const messages = [
      { role: 'user', content: 'What is the weather?' },
      first.message,
      ...first.message.tool_calls.map((c) => ({ role: 'tool', tool_call_id: c.id, content: '{"degrees": 21}' })),
    ];
    const text = await whole(ask(model, { messages, max_tokens: 30 }));
    assert.ok(text.usage.prompt_tokens > 20);
    const again = await whole(ask(model, { messages, tool_choice: 'required' }));
    valid(again.message.tool_calls);
    assert.ok(again.message.tool_calls[0].id !== first.message.tool_calls[0].id);
  });
}

test('a tool without parameters and description is called with none', async () => {
  const now = { type: 'function', function: { name: 'now' } };
  for (const model of families) {
    for (const one of [now, tool('now', {})]) {
      const choice = await whole(ask(model, { tools: [one], tool_choice: 'required', parallel_tool_calls: false }));
      const [call] = choice.message.tool_calls;
      assert.equal(call.function.name, 'now');
      assert.equal(call.function.arguments, '{}');
      assert.equal(choice.finish_reason, 'tool_calls');
    }
  }
});

test("the client's own stream helper puts the calls together", async () => {
  const body = ask('qwen3', { tool_choice: 'required', parallel_tool_calls: false });
  const runner = openai.chat.completions.stream(body, noCache);
  let last = '';
  runner.on('tool_calls.function.arguments.delta', (e) => {
    last = e.arguments;
  });
  const final = await runner.finalChatCompletion();
  valid(final.choices[0].message.tool_calls);
  assert.equal(final.choices[0].message.tool_calls[0].function.arguments, last);
  assert.equal(final.choices[0].finish_reason, 'tool_calls');
});

test("the client's own tool runner: it calls, gets the result, and goes on", async () => {
  let got = null;
  const runner = openai.chat.completions.runTools(ask('hermes', {
    tool_choice: { type: 'function', function: { name: 'get_weather' } },
    tools: [{ type: 'function', function: { ...weather.function, parse: JSON.parse, function: (args) => {
      got = args;
      return '21 degrees';
    } } }],
    parallel_tool_calls: false,
  }), noCache);
  await runner.done();
  assert.deepEqual(invalid(weather.function.parameters, got), []);
  assert.ok(runner.messages.some((m) => m.role === 'tool' && m.content === '21 degrees'));
});

test('max_tokens within a call: finish_reason length, and the arguments begin as they would', async () => {
  for (const model of ['hermes', 'llama3', 'mistral']) {
    const long = [tool('write', { text: { type: 'string', minLength: 500 } })];
    const choice = await whole(ask(model, { tools: long, tool_choice: 'required', max_tokens: 60 }));
    assert.equal(choice.finish_reason, 'length');
    assert.match(choice.message.tool_calls[0].function.arguments, /^\{"text": ?"/);
    assert.throws(() => JSON.parse(choice.message.tool_calls[0].function.arguments));
    const early = await whole(ask(model, { tools: long, tool_choice: 'required', max_tokens: 2 }));
    assert.equal(early.finish_reason, 'length'); /* half a mark is no text */
    assert.ok(!early.message.content, early.message.content);
  }
});

test('a seed repeats a call, though not its id', async () => {
  const body = ask('qwen3', { tool_choice: 'required', parallel_tool_calls: false });
  const [a, b] = [await whole(body), await whole(body)].map((c) => c.message.tool_calls[0]);
  assert.deepEqual(a.function, b.function);
  assert.notEqual(a.id, b.id);
});

test('calls are cached: the same tools hit, another choice or another tool misses', async () => {
  const body = ask('mistral', { tool_choice: 'required' });
  const by = async (more) => {
    const { data, response } = await openai.chat.completions.create({ ...body, ...more }).withResponse();
    return [response.headers.get('x-pare-answered-by'), data.choices[0].message.tool_calls[0]];
  };
  const [first, call] = await by({});
  assert.equal(first, 'local:mistral');
  assert.deepEqual(await by({ tools: structuredClone(tools) }), ['recall.exact', call]);
  assert.equal((await by({ tools: [weather] }))[0], 'local:mistral');
  assert.equal((await by({ tool_choice: { type: 'function', function: { name: 'search' } } }))[0], 'local:mistral');
});

test('a form beside tools that may be called: the form, or a call', async () => {
  const schema = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'], additionalProperties: false };
  for (const model of ['hermes', 'llama3', 'mistral']) {
    const choice = await whole(ask(model, { response_format: { type: 'json_schema', json_schema: { name: 'x', strict: true, schema } } }));
    if (choice.message.tool_calls) valid(choice.message.tool_calls);
    else assert.deepEqual(invalid(schema, JSON.parse(choice.message.content)), []);
  }
});

test('log-probabilities beside calls: one entry a token', async () => {
  const choice = await whole(ask('llama3', { tool_choice: 'required', logprobs: true }));
  valid(choice.message.tool_calls);
  assert.equal(choice.logprobs.content.length, choice.usage.completion_tokens);
});

test('what is refused: 400, with its place', async () => {
  const refused = async (more, param, model = 'hermes') => {
    const error = await fails(openai.chat.completions.create(ask(model, more), noCache), 400);
    assert.equal(error.param, param, error.message);
    assert.ok(error.message.length > 15);
  };
  const named = (name) => ({ type: 'function', function: { name } });
  await refused({ tool_choice: 'must' }, 'tool_choice');
  await refused({ tool_choice: 5 }, 'tool_choice');
  await refused({ tool_choice: named('none_of_them') }, 'tool_choice.function.name');
  await refused({ tool_choice: { type: 'function' } }, 'tool_choice.function.name');
  await refused({ tool_choice: { type: 'custom' } }, 'tool_choice.type');
  await refused({ tool_choice: 'required', tools: undefined }, 'tool_choice');
  await refused({ tool_choice: 'required', tools: [] }, 'tool_choice');
  await refused({ tools: {} }, 'tools');
  await refused({ tools: ['x'] }, 'tools[0]');
  await refused({ tools: [weather, { type: 'custom', custom: { name: 'x' } }] }, 'tools[1].type');
  await refused({ tools: [{ type: 'function' }] }, 'tools[0].function');
  await refused({ tool_choice: 'required', tools: [weather, { type: 'function', function: {} }] }, 'tools[1].function.name');
  await refused({ tool_choice: 'required', tools: [weather, tool('bad', { a: { type: 'colour' } })] }, 'tools[1].function.parameters.a', 'qwen3');
  await refused({ tool_choice: 'required', tools: [weather, { type: 'function', function: { name: 'bad', parameters: 'x' } }] }, 'tools[1].function.parameters');
  await refused({ parallel_tool_calls: 'no' }, 'parallel_tool_calls');
  await refused({ tool_choice: 'required', grammar: 'root ::= "a"' }, 'grammar');
  await refused({ chat_template_kwargs: [] }, 'chat_template_kwargs');
  await refused({ tool_choice: 'required' }, 'tool_choice', 'storyteller'); /* whose template has no place for tools */
});
