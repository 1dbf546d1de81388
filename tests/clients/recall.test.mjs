/* recall.test.mjs - the same question twice: answered from memory, in every form, and after a restart. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { events, fresh, start, temporary, until } from './support/pare.mjs';

let pare;

before(async () => {
  pare = await start();
});
after(() => pare.stop());

function by(response) {
  return response.headers.get('x-pare-answered-by');
}

/* Text, finish reason and usage of a raw stream. */
function told(text) {
  const chunks = events(text).data.filter((d) => d !== '[DONE]').map((d) => JSON.parse(d));
  return {
    text: chunks.map((c) => c.choices[0]?.delta?.content ?? '').join(''),
    finish: chunks.map((c) => c.choices[0]?.finish_reason).find(Boolean),
    usage: chunks.map((c) => c.usage).find(Boolean),
    done: events(text).data.at(-1) === '[DONE]',
  };
}

test('an identical request is answered from memory, byte for byte', async () => {
  const ask = fresh();
  const first = await pare.chat(ask);
  const text = await first.text();
  assert.equal(by(first), 'local:storyteller');
  const second = await pare.chat(ask);
  assert.equal(await second.text(), text);
  assert.equal(by(second), 'recall.exact');
  assert.equal(second.headers.get('x-pare-cost-usd'), '0.000000');
  assert.equal(second.headers.get('x-pare-saved-usd'), first.headers.get('x-pare-saved-usd'));
  const row = await pare.row(second.headers.get('x-request-id'));
  assert.equal(row.stage, 'recall.exact');
  assert.equal(row.backend, '');
});

test('what cannot change the answer does not matter: order, blanks, spelling, user, stream', async () => {
  const ask = fresh({ max_tokens: 10 });
  assert.equal(by(await pare.chat(ask)), 'local:storyteller');
  const { messages, model } = ask;
  const same = [
    JSON.stringify({ max_tokens: 10, temperature: 0.0, messages, model }, null, 4),
    { ...ask, user: 'somebody' },
    { ...ask, metadata: { trace: '1' }, n: 1, top_p: 1, presence_penalty: 0 },
    { model, messages, temperature: 0, max_completion_tokens: 10 },
    { ...ask, messages: [{ role: 'user', content: [{ type: 'text', text: messages[0].content }] }] },
    { ...ask, stream: true },
  ];
  for (const s of same) {
    const response = await pare.chat(s);
    await response.text();
    assert.equal(by(response), 'recall.exact', JSON.stringify(s));
  }
  for (const other of [{ max_tokens: 11 }, { temperature: 0.1 }, { seed: 1 }, { stop: ['zz'] }, { logprobs: true },
    { messages: [...messages, { role: 'assistant', content: '' }, ...messages] }]) {
    const response = await pare.chat({ ...ask, ...other });
    await response.text();
    assert.equal(by(response), 'local:storyteller', JSON.stringify(other));
  }
});

test('a stream is remembered and told as a stream, or whole; and the other way round', async () => {
  for (const firstStreams of [true, false]) {
    const ask = fresh();
    const first = await (await pare.chat({ ...ask, stream: firstStreams })).text();
    const stream = await pare.chat({ ...ask, stream: true, stream_options: { include_usage: true } });
    assert.equal(by(stream), 'recall.exact');
    assert.match(stream.headers.get('x-pare-saved-usd'), /^0\.0000[0-9]{2}$/);
    const again = told(await stream.text());
    const whole = await pare.chat(ask);
    assert.equal(by(whole), 'recall.exact');
    const answer = await whole.json();
    assert.deepEqual(again, {
      text: answer.choices[0].message.content,
      finish: answer.choices[0].finish_reason,
      usage: again.usage,
      done: true,
    });
    assert.equal(again.usage.completion_tokens, answer.usage.completion_tokens);
    const before = firstStreams ? told(first) : { text: JSON.parse(first).choices[0].message.content };
    assert.equal(before.text, again.text);
  }
});

test('logprobs survive the memory', async () => {
  const ask = fresh({ logprobs: true, top_logprobs: 2, max_tokens: 4 });
  const first = await (await pare.chat({ ...ask, stream: true })).text();
  const second = await pare.chat(ask);
  assert.equal(by(second), 'recall.exact');
  const streamed = events(first).data.slice(0, -1).flatMap((d) => JSON.parse(d).choices[0]?.logprobs?.content ?? []);
  assert.deepEqual((await second.json()).choices[0].logprobs.content, streamed);
});

test('no-cache asks anew and refreshes the memory; no-store leaves nothing behind', async () => {
  const ask = fresh({ temperature: 1.5, max_tokens: 30 });
  const text = async (headers) => {
    const response = await pare.chat(ask, headers);
    return { by: by(response), text: (await response.json()).choices[0].message.content };
  };
  assert.equal((await text({ 'cache-control': 'no-store' })).by, 'local:storyteller');
  const one = await text();
  assert.equal(one.by, 'local:storyteller');
  assert.deepEqual(await text(), { by: 'recall.exact', text: one.text });
  assert.equal((await text({ 'cache-control': 'no-store' })).by, 'recall.exact'); /* nothing is stored by reading */
  const two = await text({ 'cache-control': 'no-cache' });
  assert.equal(two.by, 'local:storyteller');
  assert.notEqual(two.text, one.text);
  assert.deepEqual(await text(), { by: 'recall.exact', text: two.text });
});

test('an aborted stream is not remembered', async () => {
  const ask = fresh({ stream: true, max_tokens: 100000, ignore_eos: true });
  const abort = new AbortController();
  const response = await fetch(`${pare.url}/v1/chat/completions`,
    { method: 'POST', body: JSON.stringify(ask), signal: abort.signal });
  await response.body.getReader().read();
  abort.abort();
  await until('the engine has let go', async () => (await pare.engine('running')) === 0, 1000);
  const entries = (await (await pare.get('/api/cache')).json()).entries;
  const again = await pare.chat({ ...ask, max_tokens: 100000, stream: false, ignore_eos: true, user: 'x' },
    { 'cache-control': 'no-store' }).then((r) => by(r), () => null);
  assert.equal(again, 'local:storyteller');
  assert.equal((await (await pare.get('/api/cache')).json()).entries, entries);
});

test('identical requests in flight share one job', async () => {
  const ask = fresh({ max_tokens: 300, ignore_eos: true });
  const jobs = await pare.engine('jobs_total');
  const responses = await Promise.all(Array.from({ length: 20 }, (_, i) => pare.chat({ ...ask, stream: i % 3 === 1 })));
  const texts = await Promise.all(responses.map((r) => r.text()));
  assert.equal(await pare.engine('jobs_total'), jobs + 1);
  assert.equal(responses.filter((r) => by(r) === 'local:storyteller').length, 1);
  assert.equal(responses.filter((r) => by(r) === 'recall.exact').length, 19);
  const words = texts.map((t, i) => (i % 3 === 1 ? told(t).text : JSON.parse(t).choices[0].message.content));
  assert.equal(new Set(words).size, 1);
});

test('purging by key, by model and all', async () => {
  const ask = fresh();
  await pare.chat(ask);
  const purged = await (await fetch(`${pare.url}/api/cache?model=storyteller`, { method: 'DELETE' })).json();
  assert.ok(purged.purged >= 1);
  assert.equal(by(await pare.chat(ask)), 'local:storyteller');
  assert.equal((await (await pare.get('/api/cache')).json()).entries, 1);
});

test('a restart keeps what was remembered', async () => {
  const data = temporary();
  const one = await start({ data });
  const asks = Array.from({ length: 5 }, () => fresh());
  const texts = await Promise.all(asks.map(async (a) => (await one.chat(a)).text()));
  await one.stop();
  const two = await start({ data });
  for (let i = 0; i < asks.length; i++) {
    const response = await two.chat(asks[i]);
    assert.equal(by(response), 'recall.exact');
    assert.equal(await response.text(), texts[i]);
  }
  const stats = await until('the ledger has both runs', async () => {
    const s = await two.stats();
    return s.requests === 10 && s;
  });
  assert.deepEqual(stats.by_stage, { 'recall.exact': 5, answer: 5 });
  await two.stop();
  rmSync(data, { recursive: true, force: true });
});
