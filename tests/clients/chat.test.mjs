/* chat.test.mjs - what the official openai client gets from the bundled model. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { events, fresh, sleep, start, until } from './support/pare.mjs';

let pare;
let openai;

before(async () => {
  pare = await start();
  openai = pare.client();
});
after(() => pare.stop());

async function cancellations() {
  return (await pare.metrics()).get('pare_requests_total{answered_by="local",outcome="cancelled"}');
}

test('a chat answer has text, a finish reason, usage and its price', async () => {
  const { data, response } = await openai.chat.completions.create(fresh({ max_tokens: 24 })).withResponse();
  assert.equal(data.object, 'chat.completion');
  assert.equal(data.model, 'storyteller');
  assert.equal(data.choices.length, 1);
  assert.equal(data.choices[0].message.role, 'assistant');
  assert.match(data.choices[0].message.content, /[a-z]{3}/);
  assert.ok(['stop', 'length'].includes(data.choices[0].finish_reason));
  assert.ok(data.usage.prompt_tokens > 5);
  assert.ok(data.usage.completion_tokens >= 1 && data.usage.completion_tokens <= 24);
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  assert.equal(response.headers.get('x-pare-answered-by'), 'local:storyteller');
  assert.match(response.headers.get('x-request-id'), /^[0-9a-f]{24}$/);
  assert.equal(response.headers.get('x-pare-cost-usd'), '0.000000');
  /* Saved: what gpt-4o-mini would have cost, $0.15 and $0.60 a million. */
  const micro = data.usage.prompt_tokens * 0.15 + data.usage.completion_tokens * 0.6;
  assert.ok(Math.abs(Number(response.headers.get('x-pare-saved-usd')) * 1e6 - micro) <= 0.501);
});

test('a stream says the same as the whole answer, piece by piece', async () => {
  const ask = fresh({ max_tokens: 24 });
  const noCache = { headers: { 'Cache-Control': 'no-cache, no-store' } };
  const whole = await openai.chat.completions.create(ask, noCache);
  const stream = await openai.chat.completions.create({ ...ask, stream: true }, noCache);
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  assert.equal(chunks[0].object, 'chat.completion.chunk');
  assert.equal(chunks[0].choices[0].delta.role, 'assistant');
  assert.equal(chunks.filter((c) => c.choices[0].delta.role).length, 1);
  assert.equal(new Set(chunks.map((c) => c.id)).size, 1);
  assert.equal(chunks.map((c) => c.choices[0].delta.content ?? '').join(''), whole.choices[0].message.content);
  assert.equal(chunks.at(-1).choices[0].finish_reason, whole.choices[0].finish_reason);
  assert.ok(chunks.every((c) => c.usage == null));
});

test('stream_options.include_usage brings one last chunk with the usage', async () => {
  const ask = fresh();
  const whole = await openai.chat.completions.create(ask);
  const stream = await openai.chat.completions.create(
    { ...ask, stream: true, stream_options: { include_usage: true } }, { headers: { 'Cache-Control': 'no-cache' } });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.equal(chunks.at(-1).usage.completion_tokens, whole.usage.completion_tokens);
  assert.equal(chunks.at(-1).usage.prompt_tokens, whole.usage.prompt_tokens);
  assert.equal(chunks.filter((c) => c.usage).length, 1);
});

test('the raw stream is well-formed: data lines, price and tokens as comments, [DONE] at the end', async () => {
  const response = await pare.chat(fresh({ stream: true, ignore_eos: true }));
  assert.match(response.headers.get('content-type'), /^text\/event-stream/);
  const { data, comments } = events(await response.text());
  assert.equal(data.at(-1), '[DONE]');
  data.slice(0, -1).forEach((d) => JSON.parse(d));
  assert.match(comments.join('\n'), /^x-pare-cost-usd 0\.000000\nx-pare-saved-usd 0\.\d{6}\nx-pare-tokens \d+ 16(\nx-pare-kv cached=\d+\/\d+ miss=\w+)?$/);
});

test('a stream comes as it is made, not in one piece at the end', async () => {
  const response = await pare.chat(fresh({ stream: true, max_tokens: 400, ignore_eos: true }));
  const reader = response.body.getReader();
  let reads = 0;
  while (!(await reader.read()).done) reads++;
  assert.ok(reads > 5, `${reads} reads`); /* 400 tokens; a busy machine may put many in one */
});

test('max_tokens and max_completion_tokens bound the answer', async () => {
  for (const limit of [{ max_tokens: 5 }, { max_tokens: undefined, max_completion_tokens: 5 }]) {
    const answer = await openai.chat.completions.create(fresh({ ...limit, ignore_eos: true }));
    assert.equal(answer.usage.completion_tokens, 5);
    assert.equal(answer.choices[0].finish_reason, 'length');
  }
});

test('a stop string ends the answer and is not in it', async () => {
  const ask = fresh({ max_tokens: 40 });
  const whole = (await openai.chat.completions.create(ask)).choices[0].message.content;
  const words = whole.split(' ').filter((w) => w.length > 1);
  const stop = words[Math.min(4, words.length - 1)]; /* a word that will come */
  for (const form of [stop, ['\u0001 never', stop]]) {
    const cut = await openai.chat.completions.create({ ...ask, stop: form });
    assert.equal(cut.choices[0].message.content, whole.slice(0, whole.indexOf(stop)));
    assert.equal(cut.choices[0].finish_reason, 'stop');
  }
  const stream = await openai.chat.completions.create(
    { ...ask, stop, stream: true }, { headers: { 'Cache-Control': 'no-cache' } });
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0].delta.content ?? '';
  assert.equal(text, whole.slice(0, whole.indexOf(stop)));
});

test('a seed repeats an answer, another seed or none gives another', async () => {
  const ask = (more) => openai.chat.completions
    .create(fresh({ messages: [{ role: 'user', content: 'Begin.' }], temperature: 1.5, max_tokens: 40, ...more }),
      { headers: { 'Cache-Control': 'no-cache, no-store' } })
    .then((a) => a.choices[0].message.content);
  const one = await ask({ seed: 42 });
  assert.equal(await ask({ seed: 42 }), one);
  assert.notEqual(await ask({ seed: 43 }), one);
  assert.notEqual(await ask({}), await ask({}));
});

test('logprobs: each token with its bytes and the likeliest others', async () => {
  const answer = await openai.chat.completions.create(fresh({ logprobs: true, top_logprobs: 3, max_tokens: 8, ignore_eos: true }));
  const tokens = answer.choices[0].logprobs.content;
  assert.equal(tokens.length, 8);
  for (const t of tokens) {
    assert.ok(t.logprob <= 0);
    assert.equal(t.top_logprobs.length, 3);
    assert.equal(t.top_logprobs[0].token, t.token); /* greedy: the chosen one is the likeliest */
    assert.ok(t.top_logprobs[0].logprob >= t.top_logprobs[1].logprob);
    assert.equal(Buffer.from(t.bytes).toString().includes('\ufffd') || Buffer.from(t.bytes).toString() === t.token, true);
  }
  const text = Buffer.concat(tokens.map((t) => Buffer.from(t.bytes))).toString();
  assert.equal(text.trim(), answer.choices[0].message.content.trim());
});

test('completions take a text, texts, token ids and lists of them', async () => {
  const ask = { model: 'storyteller', max_tokens: 6, temperature: 0, ignore_eos: true };
  const one = await openai.completions.create({ ...ask, prompt: 'Once upon a time' });
  assert.equal(one.object, 'text_completion');
  assert.equal(one.usage.completion_tokens, 6);
  const two = await openai.completions.create({ ...ask, prompt: ['Once upon a time', 'The ship'] });
  assert.equal(two.choices.length, 2);
  assert.deepEqual(two.choices.map((c) => c.index), [0, 1]);
  assert.equal(two.choices[0].text, one.choices[0].text); /* alone or together: the same */
  assert.equal(two.usage.completion_tokens, 12);
  const ids = await openai.completions.create({ ...ask, prompt: [10, 11, 12] });
  assert.equal(ids.usage.prompt_tokens, 3);
  const lists = await openai.completions.create({ ...ask, prompt: [[10, 11, 12], [20, 21]] });
  assert.equal(lists.choices[0].text, ids.choices[0].text);
  assert.equal(lists.usage.prompt_tokens, 5);
  const stream = await openai.completions.create({ ...ask, prompt: 'Once upon a time', stream: true });
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]?.text ?? '';
  assert.equal(text, one.choices[0].text);
  const logprobs = await openai.completions.create({ ...ask, prompt: 'Once upon a time', logprobs: 2 });
  assert.equal(logprobs.choices[0].logprobs.tokens.length, 6);
  assert.equal(logprobs.choices[0].logprobs.token_logprobs.length, 6);
});

test('many at once, greedy: each the same as alone', async () => {
  const asks = Array.from({ length: 12 }, () => fresh({ max_tokens: 20 }));
  const noCache = { headers: { 'Cache-Control': 'no-cache, no-store' } };
  const together = await Promise.all(asks.map((a) => openai.chat.completions.create(a, noCache)));
  for (let i = 0; i < asks.length; i += 4) {
    const alone = await openai.chat.completions.create(asks[i], noCache);
    assert.equal(alone.choices[0].message.content, together[i].choices[0].message.content);
  }
});

test('the list of models', async () => {
  const list = [];
  for await (const model of openai.models.list()) list.push(model);
  assert.deepEqual(list.map((m) => m.id), ['storyteller']);
  assert.equal((await openai.models.retrieve('storyteller')).object, 'model');
  const health = await (await pare.get('/health')).json();
  assert.equal(health.status, 'ok');
});

test('a client that aborts its stream frees the engine', async () => {
  const cancelled = await cancellations();
  const abort = new AbortController();
  const stream = await openai.chat.completions.create(
    fresh({ stream: true, max_tokens: 100000, ignore_eos: true }), { signal: abort.signal });
  let pieces = 0;
  for await (const chunk of stream) {
    if (chunk.choices[0].delta.content && ++pieces === 3) abort.abort();
  }
  await until('the engine has let go', async () => (await pare.engine('running')) === 0, 1000);
  await until('the cancellation is counted', async () => (await cancellations()) === cancelled + 1, 1000);
  const row = await until('the ledger says so', async () => (await pare.stats()).recent.find((r) => r.outcome === 'cancelled'));
  assert.ok(row.stream && row.completion_tokens >= 3);
});

test('a client that aborts while it waits for a whole answer frees the engine', async () => {
  const cancelled = await cancellations();
  const abort = new AbortController();
  const waiting = openai.chat.completions.create(fresh({ max_tokens: 100000, ignore_eos: true }), { signal: abort.signal });
  await until('the engine works', async () => (await pare.engine('running')) === 1, 2000);
  abort.abort();
  await assert.rejects(waiting);
  await until('the engine has let go', async () => (await pare.engine('running')) === 0, 1000);
  await until('the cancellation is counted', async () => (await cancellations()) === cancelled + 1, 1000);
  await sleep(20);
  assert.equal((await pare.metrics()).get('pare_requests_in_flight'), 0);
});
