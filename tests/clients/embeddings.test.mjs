/* embeddings.test.mjs - what the official openai client gets from a model that makes embeddings. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fails, program, start, temporary } from './support/pare.mjs';

let folder;
let pare;
let openai;

before(async () => {
  folder = temporary();
  const synth = (shape, file) => {
    execFileSync(program, ['synth', '--shape', shape, '--type', 'f32', '--out', join(folder, file)], { stdio: 'ignore' });
    return join(folder, file);
  };
  pare = await start({
    args: ['--model', `m=${synth('bert-tiny', 'encoder.gguf')}`, '--model', `chat=${synth('llama-tiny', 'llama.gguf')}`],
  });
  openai = pare.client();
});
after(async () => {
  await pare.stop();
  rmSync(folder, { recursive: true, force: true });
});

const length = (v) => Math.sqrt(v.reduce((sum, x) => sum + x * x, 0));

test('a text becomes a vector of length 1, with usage', async () => {
  const { data, response } = await openai.embeddings
    .create({ model: 'm', input: 'the quick brown fox', encoding_format: 'float' }).withResponse();
  assert.equal(data.object, 'list');
  assert.equal(data.model, 'm');
  assert.equal(data.data.length, 1);
  assert.equal(data.data[0].object, 'embedding');
  assert.equal(data.data[0].index, 0);
  assert.equal(data.data[0].embedding.length, 64);
  assert.ok(Math.abs(length(data.data[0].embedding) - 1) < 1e-6);
  assert.ok(data.usage.prompt_tokens >= 6); /* four words, [CLS] and [SEP] */
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens);
  assert.equal(response.headers.get('x-pare-answered-by'), 'local:m');
  const row = await pare.row(response.headers.get('x-request-id'));
  assert.equal(row.prompt_tokens, data.usage.prompt_tokens);
  assert.equal(row.completion_tokens, 0);
  assert.equal(row.outcome, 'ok');
});

test('base64, which the client asks for by itself, holds the same float32 values', async () => {
  const input = ['one', 'two words', 'and three of them'];
  const plain = await openai.embeddings.create({ model: 'm', input, encoding_format: 'float' });
  const packed = await openai.embeddings.create({ model: 'm', input }); /* the client decodes it */
  const raw = await (await pare.post('/v1/embeddings', { model: 'm', input, encoding_format: 'base64' })).json();
  for (let i = 0; i < input.length; i++) {
    assert.equal(plain.data[i].index, i);
    assert.deepEqual(packed.data[i].embedding.map(Math.fround), plain.data[i].embedding.map(Math.fround));
    const bytes = Buffer.from(raw.data[i].embedding, 'base64');
    assert.equal(bytes.length, 4 * 64);
    for (let k = 0; k < 64; k++) assert.equal(bytes.readFloatLE(4 * k), Math.fround(plain.data[i].embedding[k]));
  }
  assert.notDeepEqual(plain.data[0].embedding, plain.data[1].embedding);
});

test('a text has the same vector alone and among others, as text and as tokens', async () => {
  const noStore = { headers: { 'Cache-Control': 'no-cache, no-store' } };
  const create = (input) => openai.embeddings.create({ model: 'm', input, encoding_format: 'float' }, noStore);
  const many = await create(Array.from({ length: 300 }, (_, i) => `text number ${i} of a list`));
  const alone = await create('text number 217 of a list');
  assert.deepEqual(many.data[217].embedding, alone.data[0].embedding);
  const ids = execFileSync(program, ['tokenize', '--model', join(folder, 'encoder.gguf'), '--bos'],
    { input: 'text number 217 of a list' }).toString().trim().split(/\s+/).map(Number);
  assert.deepEqual((await create(ids)).data[0].embedding, alone.data[0].embedding);
  assert.deepEqual((await create([ids, ids])).data[1].embedding, alone.data[0].embedding);
});

test('dimensions cut vectors and make them length 1 again', async () => {
  const whole = (await openai.embeddings.create({ model: 'm', input: 'cut me', encoding_format: 'float' })).data[0].embedding;
  const cut = (await openai.embeddings.create({ model: 'm', input: 'cut me', encoding_format: 'float', dimensions: 16 }))
    .data[0].embedding;
  assert.equal(cut.length, 16);
  const size = length(whole.slice(0, 16));
  for (let i = 0; i < 16; i++) assert.ok(Math.abs(cut[i] - whole[i] / size) < 1e-6);
  const error = await fails(openai.embeddings.create({ model: 'm', input: 'x', dimensions: 65 }), 400);
  assert.equal(error.param, 'dimensions');
});

test('the same list again comes from the cache', async () => {
  const ask = { model: 'm', input: ['remember', 'these two'], encoding_format: 'float' };
  const first = await openai.embeddings.create(ask).withResponse();
  const second = await openai.embeddings.create(ask).withResponse();
  assert.equal(second.response.headers.get('x-pare-answered-by'), 'recall.exact');
  assert.deepEqual(second.data, first.data);
});

test('what is wrong is named', async () => {
  const wrong = [
    [{ input: '' }, 'input'],
    [{ input: [] }, 'input'],
    [{}, 'input'],
    [{ input: 7 }, 'input'],
    [{ input: ['a', ''] }, 'input[1]'],
    [{ input: ['a', 3] }, 'input[1]'],
    [{ input: [[1, 2], []] }, 'input[1]'],
    [{ input: [1, -2] }, 'input[1]'],
    [{ input: [1024] }, 'input'],
    [{ input: Array(2049).fill('x') }, 'input'],
    [{ input: 'x', encoding_format: 'int8' }, 'encoding_format'],
    [{ input: 'x', dimensions: 0 }, 'dimensions'],
  ];
  for (const [body, param] of wrong) {
    const response = await pare.post('/v1/embeddings', { model: 'm', ...body });
    const { error } = await response.json();
    assert.equal(response.status, 400, JSON.stringify(body).slice(0, 80));
    assert.equal(error.param, param, `${JSON.stringify(body).slice(0, 80)}: ${error.message}`);
  }
  const long = await fails(openai.embeddings.create({ model: 'm', input: ['a', 'a b c d '.repeat(40)] }), 400);
  assert.equal(long.code, 'context_length_exceeded');
  assert.equal(long.param, 'input[1]');
  assert.match(long.message, /162 tokens.* 128/);
});

test('a model that only writes refuses, and one that only embeds does not write', async () => {
  const writes = await fails(openai.embeddings.create({ model: 'chat', input: 'x' }), 400);
  assert.match(writes.message, /pooling/);
  const embeds = await fails(openai.chat.completions.create({ model: 'm', messages: [{ role: 'user', content: 'x' }] }), 400);
  assert.match(embeds.message, /\/v1\/embeddings/);
});

test('rerank puts the document first that says what the query says', async () => {
  const documents = ['zebra crossing', { text: 'the red house on the hill' }, 'qqq'];
  const ask = { model: 'm', query: 'the red house on the hill', documents, return_documents: true };
  const all = await (await pare.post('/v1/rerank', ask)).json();
  assert.equal(all.model, 'm');
  assert.match(all.id, /^rerank-/);
  assert.equal(all.results.length, 3);
  assert.equal(all.results[0].index, 1);
  assert.ok(Math.abs(all.results[0].relevance_score - 1) < 1e-6); /* the same text: cosine 1 */
  assert.equal(all.results[0].document.text, 'the red house on the hill');
  assert.ok(all.results.every((r, i) => i === 0 || r.relevance_score <= all.results[i - 1].relevance_score));
  assert.ok(all.usage.total_tokens > 0);
  const best = await (await pare.post('/v1/rerank', { ...ask, top_n: 1, return_documents: false })).json();
  assert.deepEqual(best.results.map((r) => [r.index, r.document]), [[1, undefined]]);
  const none = await pare.post('/v1/rerank', { model: 'm', query: 'x', documents: [] });
  assert.equal(none.status, 400);
  assert.equal((await none.json()).error.param, 'documents');
});

test('many clients at once get what is theirs', async () => {
  const noStore = { headers: { 'Cache-Control': 'no-cache, no-store' } };
  const create = (input) => openai.embeddings.create({ model: 'm', input, encoding_format: 'float' }, noStore);
  const texts = Array.from({ length: 40 }, (_, i) => `${i} client says ${'abc '.repeat(i % 7)}`);
  const alone = [];
  for (const text of texts.slice(0, 5)) alone.push((await create(text)).data[0].embedding);
  const answers = await Promise.all(texts.map(create));
  alone.forEach((vector, i) => assert.deepEqual(answers[i].data[0].embedding, vector));
  const metrics = await pare.metrics();
  assert.ok(metrics.get('pare_embed_texts_total{model="m"}') >= 45);
  assert.equal(metrics.get('pare_embed_waiting{model="m"}'), 0);
});
