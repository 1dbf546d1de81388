/* remote.test.mjs - a provider behind pare: what passes through untouched, what it costs, and what happens when the
 * provider fails in each way that providers do. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { events, fails, fresh, sleep, start, until } from './support/pare.mjs';
import { chunks, limitBody, names, provider, usage, usageChunk, wholeText } from './support/upstream.mjs';

let pare;
let up;

before(async () => {
  up = await provider();
  process.env.UP_KEY = 'provider-secret';
  const models = names.map((n) => `  ${n}: {backend: up, model: up-${n}, price: metered, retries: 0}`).join('\n');
  pare = await start({
    config: `
backends:
  up:
    base_url: ${up.url}
    api_key: "\${UP_KEY}"
    timeouts: {connect: 2s, first: 1s, between: 1s, total: 20s}
  nobody: {base_url: "http://127.0.0.1:1/v1"}
prices:
  metered: {input: 2.50, cached_input: 1.25, output: 10}
models:
${models}
  dead: {backend: nobody, price: metered, retries: 0}
`,
  });
});
after(async () => {
  await pare.stop();
  await up.stop();
});

const ask = (model, more) => fresh({ model, max_tokens: 64, ...more });
const by = (response) => response.headers.get('x-pare-answered-by');

/* Asks twice; the second time the provider must be asked again. */
async function neverRemembered(model, more, check) {
  const body = ask(model, more);
  for (let i = 1; i <= 2; i++) {
    const before = up.count(model);
    const response = await pare.chat(body);
    const text = await response.text();
    await check(response, text);
    assert.equal(up.count(model), before + 1);
  }
}

/* A stream that broke: pieces first, then an error event, and no end mark. */
function brokeOff(text, sentence) {
  const { data } = events(text);
  assert.ok(data.length >= 2, text);
  assert.equal(data.includes('[DONE]'), false);
  const { error } = JSON.parse(data.at(-1));
  assert.match(error.message, sentence);
  assert.equal(error.type, 'api_error');
  assert.deepEqual(data.slice(0, -1), chunks.slice(0, data.length - 1));
}

test('a whole answer: every byte as the provider wrote it, and its price to the micro-dollar', async () => {
  const body = ask('whole', { x_unknown: { a: 1.50 }, tools: [{ type: 'function', function: { name: 'f', parameters: {} } }] });
  const text = JSON.stringify(body, null, 1);
  const response = await pare.chat(text, { authorization: 'Bearer client-secret' });
  assert.equal(await response.text(), wholeText);
  assert.equal(response.status, 200);
  assert.equal(by(response), 'remote:up');
  /* 234 * 2.5 + 1000 * 1.25 + 56 * 10 */
  assert.equal(response.headers.get('x-pare-cost-usd'), '0.002395');
  assert.equal(response.headers.get('x-pare-saved-usd'), '0.000000');
  const seen = up.last('whole');
  assert.equal(seen.path, '/v1/chat/completions');
  assert.equal(seen.headers.authorization, 'Bearer provider-secret');
  assert.equal(seen.text, text.replace('"model": "whole"', '"model": "up-whole"')); /* nothing else has changed */
  const row = await pare.row(response.headers.get('x-request-id'));
  assert.equal(row.cost_usd, 0.002395);
  assert.equal(row.prompt_tokens, 1234);
  assert.equal(row.completion_tokens, 56);
  assert.equal(row.backend, 'remote:up');
  /* From memory it costs nothing and saves the whole: 1234 * 2.5 + 56 * 10. */
  const again = await pare.chat(body);
  assert.equal(await again.text(), wholeText);
  assert.equal(again.headers.get('x-pare-cost-usd'), '0.000000');
  assert.equal(again.headers.get('x-pare-saved-usd'), '0.003645');
  assert.equal(up.count('whole'), 1);
});

test('half a micro-dollar rounds up', async () => {
  const response = await pare.chat(ask('rounds')); /* 101 * 2.5 + 1 * 10 = 262.5 */
  assert.equal(response.headers.get('x-pare-cost-usd'), '0.000263');
});

test('a stream: every payload as the provider wrote it; usage is asked for and kept from who did not', async () => {
  const response = await pare.chat(ask('stream', { stream: true }));
  assert.equal(by(response), 'remote:up');
  const { data, comments } = events(await response.text());
  assert.deepEqual(data, [...chunks, '[DONE]']);
  assert.deepEqual(comments, ['x-pare-cost-usd 0.002395', 'x-pare-saved-usd 0.000000', 'x-pare-tokens 1234 56']);
  assert.deepEqual(up.last('stream').body.stream_options, { include_usage: true });
  const row = await pare.row(response.headers.get('x-request-id'));
  assert.equal(row.cost_usd, 0.002395);
  assert.ok(row.stream);
  const asked = await pare.chat(ask('stream', { stream: true, stream_options: { include_usage: true, x: 1 } }));
  assert.deepEqual(events(await asked.text()).data, [...chunks, usageChunk, '[DONE]']);
  assert.deepEqual(up.last('stream').body.stream_options, { include_usage: true, x: 1 });
});

test('the openai client reads it, live and from memory', async () => {
  const body = ask('stream', { stream: true, stream_options: { include_usage: true } });
  const read = async () => {
    let text = '';
    let counted;
    for await (const c of await pare.client().chat.completions.create(body)) {
      text += c.choices[0]?.delta.content ?? '';
      counted = c.usage ?? counted;
    }
    return { text, prompt: counted.prompt_tokens, completion: counted.completion_tokens };
  };
  const live = await read();
  assert.deepEqual(live, { text: 'The tide comes in.', prompt: usage.prompt_tokens, completion: usage.completion_tokens });
  const before = up.count('stream');
  assert.deepEqual(await read(), live);
  assert.equal(up.count('stream'), before);
});

test('a stream is handed on piece by piece, not collected', async () => {
  const response = await pare.chat(ask('step', { stream: true }));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  while (!text.includes(chunks[1])) text += (await reader.read()).value;
  up.go(); /* only now does the provider go on */
  for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
  assert.deepEqual(events(text).data, [...chunks, '[DONE]']);
});

test('however the bytes are cut, the payloads are the same', async () => {
  const response = await pare.chat(ask('split', { stream: true }));
  assert.deepEqual(events(await response.text()).data, [...chunks, '[DONE]']);
});

test('a provider that does not count: pare does', async () => {
  for (const [model, more] of [['uncounted', {}], ['stream-uncounted', { stream: true }]]) {
    const response = await pare.chat(ask(model, more));
    await response.text();
    const row = await pare.row(response.headers.get('x-request-id'));
    assert.ok(row.prompt_tokens >= 5 && row.prompt_tokens < 60, `${row.prompt_tokens}`);
    assert.ok(row.completion_tokens >= 3 && row.completion_tokens < 12, `${row.completion_tokens}`);
    const micro = row.prompt_tokens * 2.5 + row.completion_tokens * 10;
    assert.ok(Math.abs(row.cost_usd * 1e6 - micro) <= 0.501);
  }
});

test('429: status, body and Retry-After as they came; not remembered', async () => {
  await neverRemembered('limited', {}, async (response, text) => {
    assert.equal(response.status, 429);
    assert.equal(text, limitBody);
    assert.equal(response.headers.get('retry-after'), '17');
    const row = await pare.row(response.headers.get('x-request-id'));
    assert.equal(row.outcome, 'error');
    assert.equal(row.status, 429);
    assert.equal(row.cost_usd, 0);
  });
  await neverRemembered('limited', { stream: true }, (response, text) => {
    assert.equal(response.status, 429);
    assert.equal(text, limitBody);
  });
  const error = await fails(pare.client().chat.completions.create(ask('limited')), 429);
  assert.equal(error.code, 'rate_limit_exceeded');
});

test('500 with a page of HTML passes on as it is', async () => {
  await neverRemembered('broken', {}, (response, text) => {
    assert.equal(response.status, 500);
    assert.equal(text, '<h1>Oops</h1>');
    assert.match(response.headers.get('content-type'), /^text\/html/);
  });
});

test('a connection that breaks in the middle of a stream: an error event and no [DONE]; not remembered', async () => {
  await neverRemembered('reset', { stream: true }, async (response, text) => {
    brokeOff(text, /up broke off|up ended/);
    const row = await pare.row(response.headers.get('x-request-id'));
    assert.equal(row.outcome, 'error');
  });
  const stream = await pare.client().chat.completions.create(ask('reset', { stream: true }));
  await assert.rejects(async () => {
    for await (const _ of stream); /* the client sees it, too */
  }, /up/);
});

test('a stream that just ends, with neither finish reason nor [DONE], broke off as well', async () => {
  await neverRemembered('cut-clean', { stream: true }, (_, text) => brokeOff(text, /ended its stream in the middle/));
});

test('a stream with a finish reason but no [DONE] is complete', async () => {
  const body = ask('no-done', { stream: true });
  assert.deepEqual(events(await (await pare.chat(body)).text()).data, [...chunks, '[DONE]']);
  assert.equal(by(await pare.chat(body)), 'recall.exact');
});

test('an error inside a 200, whole and in a stream', async () => {
  await neverRemembered('error-inside', {}, (response, text) => {
    assert.equal(response.status, 502);
    assert.match(JSON.parse(text).error.message, /up.*The model is asleep/);
  });
  await neverRemembered('error-event', { stream: true }, (_, text) => brokeOff(text, /up.*The model fell asleep/));
  await neverRemembered('not-json', {}, (response, text) => {
    assert.equal(response.status, 502);
    assert.match(JSON.parse(text).error.message, /not an answer/);
  });
});

test('a provider that says nothing: 504 in time; one that stops talking: an error event', async () => {
  const began = Date.now();
  const silent = pare.chat(ask('silent'));
  const stalls = pare.chat(ask('stalls', { stream: true }));
  const response = await silent;
  assert.equal(response.status, 504);
  assert.match((await response.json()).error.message, /up did not answer in time/);
  brokeOff(await (await stalls).text(), /did not go on/);
  assert.ok(Date.now() - began < 4000, `${Date.now() - began} ms`);
  await until('the provider is let go', () => up.last('silent').gone && up.last('stalls').gone, 1000);
});

test('nobody there: 502 with the name and what to look at', async () => {
  const response = await pare.chat(ask('dead'));
  assert.equal(response.status, 502);
  assert.match((await response.json()).error.message, /nobody.*base_url/);
  /* Not counted: on a connection that was used before, libcurl tries once more when it dies without a byte. */
  const cut = await pare.chat(ask('reset-first'));
  assert.equal(cut.status, 502);
  assert.match((await cut.json()).error.message, /up did not answer/);
});

test('a client that leaves its stream takes the provider along', async () => {
  const abort = new AbortController();
  const stream = await pare.client().chat.completions.create(ask('endless', { stream: true }), { signal: abort.signal });
  let pieces = 0;
  for await (const _ of stream) {
    if (++pieces === 5) abort.abort();
  }
  await until("the provider's connection is closed", () => up.last('endless').gone, 1000);
  const row = await until('the ledger says so', async () =>
    (await pare.stats()).recent.find((r) => r.model === 'endless' && r.outcome === 'cancelled'));
  assert.ok(row.completion_tokens > 0 && row.cost_usd > 0); /* what was made will be on the invoice */
  assert.equal(row.saved_usd, 0);
});

test('a client that leaves while it waits takes the provider along', async () => {
  const abort = new AbortController();
  const before = up.count('silent');
  const waiting = pare.client().chat.completions.create(ask('silent'), { signal: abort.signal });
  await until('the provider is asked', () => up.count('silent') > before);
  abort.abort();
  await assert.rejects(waiting);
  await until("the provider's connection is closed", () => up.last('silent').gone, 500);
});

test('identical requests in flight are one request to the provider', async () => {
  const body = ask('slow');
  const answers = await Promise.all(Array.from({ length: 10 }, () => pare.chat(body)));
  const texts = await Promise.all(answers.map((a) => a.text()));
  assert.equal(up.count('slow'), 1);
  assert.ok(texts.every((t) => t === wholeText));
  assert.equal(answers.filter((a) => a.headers.get('x-pare-cost-usd') === '0.002395').length, 1);
  assert.equal(answers.filter((a) => a.headers.get('x-pare-saved-usd') === '0.003645').length, 9);
});

test('the first of several leaves: the others still get the answer; when all have left, so has the provider', async () => {
  for (const allLeave of [false, true]) {
    const body = ask('held');
    const count = up.count('held');
    const leave = Array.from({ length: 3 }, () => new AbortController());
    const post = (i) => fetch(`${pare.url}/v1/chat/completions`,
      { method: 'POST', body: JSON.stringify({ ...body, stream: i === 2 }), signal: leave[i].signal }).then((r) => r.text());
    const first = post(0);
    await until('the provider is asked', () => up.count('held') > count);
    const others = [post(1), post(2)];
    await until('they wait', async () => (await pare.metrics()).get('pare_requests_in_flight') === 3);
    leave[0].abort();
    await assert.rejects(first);
    await sleep(100);
    assert.equal(up.last('held').gone, false);
    if (allLeave) {
      leave.forEach((l) => l.abort());
      await Promise.allSettled(others);
      await until("the provider's connection is closed", () => up.last('held').gone, 1000);
    } else {
      up.go();
      const [whole, stream] = await Promise.all(others);
      assert.equal(whole, wholeText);
      assert.equal(events(stream).data.at(-1), '[DONE]');
    }
    assert.equal(up.count('held'), count + 1);
    await until('nothing is left', async () => (await pare.metrics()).get('pare_requests_in_flight') === 0, 1000);
  }
});

test('when the one request fails, each of the others asks for itself', async () => {
  const body = ask('error-inside');
  const before = up.count('error-inside');
  const answers = await Promise.all(Array.from({ length: 3 }, () => pare.chat(body)));
  assert.deepEqual(answers.map((a) => a.status), [502, 502, 502]);
  const asked = up.count('error-inside') - before;
  assert.ok(asked >= 1 && asked <= 3, `${asked}`);
});

test('a provider that answers a wish for a stream whole', async () => {
  const response = await pare.chat(ask('whole-for-stream', { stream: true, stream_options: { include_usage: true } }));
  const { data } = events(await response.text());
  assert.equal(data.at(-1), '[DONE]');
  const parts = data.slice(0, -1).map((d) => JSON.parse(d));
  assert.equal(parts.map((p) => p.choices[0]?.delta.content ?? '').join(''), 'The tide comes in.');
  assert.equal(parts.at(-1).usage.prompt_tokens, 1234);
});

test('answers that were filtered or cut short of what was asked are not remembered', async () => {
  await neverRemembered('filtered', {}, (response) => assert.equal(response.status, 200));
  await neverRemembered('short', {}, (response) => assert.equal(response.status, 200)); /* 56 tokens of 64 */
  const body = ask('short', { max_tokens: 56 }); /* as many as were asked for: complete */
  await (await pare.chat(body)).text();
  assert.equal(by(await pare.chat(body)), 'recall.exact');
});

test('tool calls pass through, and come back from memory whole', async () => {
  const body = ask('tools', { stream: true, tools: [{ type: 'function', function: { name: 'find', parameters: {} } }] });
  const first = events(await (await pare.chat(body)).text()).data;
  assert.equal(first.length, 6);
  const whole = await pare.chat({ ...body, stream: false });
  assert.equal(by(whole), 'recall.exact');
  const { message, finish_reason } = (await whole.json()).choices[0];
  assert.equal(finish_reason, 'tool_calls');
  assert.equal(message.content, null);
  assert.deepEqual(message.tool_calls.map(({ id, type, function: f }) => ({ id, type, ...f })),
    [{ id: 'call_1', type: 'function', name: 'find', arguments: '{"q":"sea"}' }]);
  const again = pare.client().chat.completions.stream(body);
  const final = await again.finalChatCompletion();
  assert.equal(final.choices[0].message.tool_calls[0].function.arguments, '{"q":"sea"}');
});

test('the sums of the ledger are the sums of the rows', async () => {
  await until('all is written', async () => (await pare.metrics()).get('pare_ledger_waiting') === 0);
  const stats = await pare.stats();
  const metrics = await pare.metrics();
  assert.ok(stats.requests > 30);
  assert.equal(stats.requests, Object.values(stats.by_outcome).reduce((a, b) => a + b));
  assert.equal(stats.requests, stats.series.reduce((a, s) => a + s.requests, 0));
  const sum = (name) => Math.round(stats.by_model.reduce((a, m) => a + m[name] * 1e6, 0)) / 1e6;
  assert.equal(sum('cost_usd'), stats.cost_usd);
  assert.equal(sum('saved_usd'), stats.saved_usd);
  assert.equal(metrics.get('pare_cost_usd_total'), stats.cost_usd);
  assert.equal(metrics.get('pare_saved_usd_total'), stats.saved_usd);
  assert.equal(metrics.get('pare_requests_in_flight'), 0);
});
