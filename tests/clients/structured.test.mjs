/* structured.test.mjs - answers held to a form: JSON, schemas and grammars, as the official openai client asks for them.
 *
 * The storyteller babbles, so what is valid here is valid because the grammar made it so. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { fails, fresh } from './support/pare.mjs';
import { startFamilies } from './support/models.mjs';
import { invalid } from './support/schema.mjs';

const noCache = { headers: { 'Cache-Control': 'no-cache, no-store' } };

let pare;
let openai;

before(async () => {
  pare = await startFamilies(['hermes', 'think', 'control']);
  openai = pare.client();
});
after(() => pare.stop());

/* A question that nobody has asked, to be asked in several ways. */
function question(more) {
  return fresh({ max_tokens: 300, ...more });
}

function strict(schema, name = 'answer') {
  return { type: 'json_schema', json_schema: { name, strict: true, schema } };
}

function closed(properties, more = {}) {
  return { type: 'object', properties, required: Object.keys(properties), additionalProperties: false, ...more };
}

const short = { type: 'string', maxLength: 12 };

async function whole(more, options = noCache) {
  const { choices: [choice] } = await openai.chat.completions.create({ ...fresh({ max_tokens: 300 }), ...more }, options);
  return choice;
}

async function streamed(more) {
  const stream = await openai.chat.completions.create({ ...fresh({ max_tokens: 300 }), ...more, stream: true }, noCache);
  const choice = { content: '', reasoning: '', pieces: 0, finish_reason: null };
  for await (const { choices: [c] } of stream) {
    choice.content += c?.delta.content ?? '';
    choice.reasoning += c?.delta.reasoning_content ?? '';
    choice.pieces += c?.delta.content ? 1 : 0;
    choice.finish_reason = c?.finish_reason ?? choice.finish_reason;
  }
  return choice;
}

async function valid(schema, more = {}) {
  const choice = await whole({ response_format: strict(schema), ...more });
  assert.equal(choice.finish_reason, 'stop', choice.message.content);
  const value = JSON.parse(choice.message.content);
  assert.deepEqual(invalid(schema, value), [], choice.message.content);
  return value;
}

/* ---- JSON ---- */

/* The text, closed where max_tokens cut it: parses when it is the beginning of some JSON. */
function completed(text) {
  const open = [];
  let inside = false;
  for (let i = 0; i < text.length; i++) {
    if (inside) {
      if (text[i] === '\\') i++;
      else if (text[i] === '"') inside = false;
    } else if (text[i] === '"') inside = true;
    else if ('{['.includes(text[i])) open.unshift(text[i] === '{' ? '}' : ']');
    else if ('}]'.includes(text[i])) open.shift();
  }
  for (const middle of ['', '"', '": 0', ': 0', '0', '"": 0', 'u0000"', '0000"', '000"', '00"', '0"', '\\"', 'n"', 'true', 'rue', 'ue', 'e',
    'alse', 'lse', 'se', 'null', 'ull', 'll', 'l', '": 0']) {
    for (const tail of ['', ': 0']) {
      try {
        return JSON.parse(text + middle + tail + open.join(''));
      } catch { /* the next one */ }
    }
  }
  return assert.fail(`no beginning of JSON: ${text}`);
}

test('json_object: an object, whole and as a stream', async () => {
  for (let seed = 1; seed <= 6; seed++) {
    const ask = question({ response_format: { type: 'json_object' }, temperature: seed / 3, seed, max_tokens: 120 });
    const choice = await whole(ask);
    const value = choice.finish_reason === 'stop' ? JSON.parse(choice.message.content) : completed(choice.message.content);
    assert.ok(typeof value === 'object' && !Array.isArray(value), choice.message.content);
    assert.equal((await streamed(ask)).content, choice.message.content);
  }
  const empty = { type: 'json_object', schema: { type: 'object', properties: {}, additionalProperties: false } };
  assert.equal((await whole({ response_format: empty })).message.content, '{}'); /* as llama.cpp takes it */
});

test('response_format text is no form at all', async () => {
  const ask = fresh({ max_tokens: 12 });
  const plain = await openai.chat.completions.create(ask, noCache);
  const text = await openai.chat.completions.create({ ...ask, response_format: { type: 'text' } }, noCache);
  assert.equal(text.choices[0].message.content, plain.choices[0].message.content);
});

/* ---- schemas ---- */

const schemas = {
  'nested objects': closed({ hero: closed({ name: short, home: closed({ town: short }) }), title: short }),
  enums: closed({ mood: { enum: ['glad', 'sad', 'fierce'] }, n: { enum: [1, 2.5, null, true, 'one'] }, c: { const: 'x"\\y' } }),
  arrays: closed({
    names: { type: 'array', items: short, minItems: 2, maxItems: 4 },
    pair: { type: 'array', prefixItems: [{ type: 'boolean' }, { enum: ['a', 'b'] }], items: false, minItems: 2 },
  }),
  anyOf: closed({
    pet: { anyOf: [closed({ kind: { const: 'cat' }, lives: { type: 'integer', minimum: 1, maximum: 9 } }),
      closed({ kind: { const: 'dog' }, barks: { type: 'boolean' } }), { type: 'null' }] },
  }),
  'references, also to itself': {
    ...closed({ tree: { $ref: '#/$defs/node' } }),
    $defs: { node: closed({ label: { $ref: '#/$defs/label' },
      below: { type: 'array', items: { $ref: '#/$defs/node' }, maxItems: 1 } }),
    label: { enum: ['oak', 'elm'] } },
  },
  patterns: closed({ date: { type: 'string', pattern: '^\\d{4}-(0[1-9]|1[0-2])$' }, code: { type: 'string', pattern: '^[A-Z]{2,3}[0-9]{1,4}x?$' } }),
  'ranges of numbers': closed({
    age: { type: 'integer', minimum: 17, maximum: 123 },
    below: { type: 'integer', exclusiveMinimum: -40, exclusiveMaximum: -5 },
    share: { type: 'number', minimum: 0, maximum: 1 },
  }),
  'lengths of strings': closed({ four: { type: 'string', minLength: 4, maxLength: 4 }, least: { type: 'string', minLength: 20, maxLength: 40 } }),
  'lists of types': closed({ a: { type: ['integer', 'null'] }, b: { type: ['boolean', 'null'] } }),
  'names and texts beyond ASCII': closed({ größe: { enum: ['klein', 'groß', '日本 🙂'] }, 'a "b"': { type: 'boolean' } }),
  'an array at the top': { type: 'array', items: { type: 'integer', minimum: 0, maximum: 99 }, minItems: 3, maxItems: 3 },
  allOf: { allOf: [closed({ a: { type: 'boolean' }, b: short }), { properties: { b: { minLength: 3 } } }] },
};

for (const [name, schema] of Object.entries(schemas)) {
  test(`json_schema: ${name}`, async () => {
    for (const more of [{ temperature: 0.7, seed: 6 }, { temperature: 1.2, seed: 7 }, { temperature: 2, seed: 8 }]) {
      await valid(schema, more);
    }
  });
}

test('members come in the order of the schema', async () => {
  for (const order of [['zebra', 'apple', 'mango'], ['mango', 'zebra', 'apple']]) {
    /* two asks alike but for the order are two questions: cached answers must not be mixed up */
    const ask = { messages: [{ role: 'user', content: `In order, ${process.pid}.` }] };
    const schema = closed(Object.fromEntries(order.map((k) => [k, { type: 'boolean' }])), { required: ['apple', 'mango', 'zebra'] });
    const { choices: [{ message }] } = await openai.chat.completions.create(fresh({ ...ask, max_tokens: 60, response_format: strict(schema) }));
    assert.deepEqual(Object.keys(JSON.parse(message.content)), order);
  }
});

test('a stream brings the same JSON as the whole answer', async () => {
  const schema = schemas['nested objects'];
  const ask = question({ response_format: strict(schema), temperature: 1, seed: 11 });
  const a = await whole(ask);
  const b = await streamed(ask);
  assert.equal(b.content, a.message.content);
  assert.equal(b.finish_reason, 'stop');
  assert.ok(b.pieces > 1, `${b.pieces} pieces`);
});

test("the client's own helpers: parse and stream", async () => {
  const schema = schemas.anyOf;
  const format = strict(schema);
  const create = openai.chat.completions;
  const parsed = await create.parse(fresh({ response_format: { ...format, $brand: undefined }, max_tokens: 200 }), noCache);
  assert.deepEqual(invalid(schema, JSON.parse(parsed.choices[0].message.content)), []);
  const runner = create.stream(fresh({ response_format: format, max_tokens: 200 }), noCache);
  let deltas = '';
  runner.on('content.delta', ({ delta }) => {
    deltas += delta;
  });
  const final = await runner.finalChatCompletion();
  assert.equal(deltas, final.choices[0].message.content);
  assert.deepEqual(invalid(schema, JSON.parse(deltas)), []);
  assert.equal(final.choices[0].finish_reason, 'stop');
});

test('max_tokens cuts an answer short: finish_reason length, and what there is begins valid', async () => {
  const choice = await whole({ response_format: strict(closed({ story: { type: 'string', minLength: 400 } })), max_tokens: 20 });
  assert.equal(choice.finish_reason, 'length');
  assert.match(choice.message.content, /^\{"story": ?"/);
});

test('a seed repeats an answer', async () => {
  const ask = question({ response_format: strict(schemas.arrays), temperature: 1.5 });
  const text = async (seed) => (await whole({ ...ask, seed })).message.content;
  const one = await text(42);
  assert.equal(await text(42), one);
  assert.notEqual(await text(43), one);
});

test('many at once get what each gets alone', async () => {
  const asks = Object.values(schemas).map((s) => fresh({ max_tokens: 300, response_format: strict(s), temperature: 1, seed: 3 }));
  const together = await Promise.all(asks.map((a) => openai.chat.completions.create(a, noCache)));
  for (let i = 0; i < asks.length; i += 4) {
    const alone = await openai.chat.completions.create(asks[i], noCache);
    assert.equal(alone.choices[0].message.content, together[i].choices[0].message.content);
  }
});

test('logprobs beside a schema: one entry a token, which together are the text', async () => {
  const ask = fresh({ response_format: strict(schemas.enums), max_tokens: 100 });
  const plain = await openai.chat.completions.create(ask, noCache);
  const answer = await openai.chat.completions.create({ ...ask, logprobs: true, top_logprobs: 2 }, noCache);
  const { message, logprobs } = answer.choices[0];
  assert.deepEqual(invalid(schemas.enums, JSON.parse(message.content)), []);
  assert.equal(Buffer.concat(logprobs.content.map((t) => Buffer.from(t.bytes))).toString(), message.content);
  assert.equal(logprobs.content.length, answer.usage.completion_tokens);
  for (const t of logprobs.content) assert.ok(t.logprob <= 0 && t.top_logprobs.length === 2);
  /* What is forced is skipped where no log-probabilities are asked for, and computed where they are. */
  assert.deepEqual(invalid(schemas.enums, JSON.parse(plain.choices[0].message.content)), []);
});

test('the cache: the same schema hits, another one misses', async () => {
  const ask = fresh({ max_tokens: 120 });
  const by = async (schema) => {
    const { data, response } = await openai.chat.completions
      .create({ ...ask, response_format: strict(schema) }).withResponse();
    return { text: data.choices[0].message.content, by: response.headers.get('x-pare-answered-by') };
  };
  const first = await by(schemas.enums);
  assert.equal(first.by, 'local:storyteller');
  assert.deepEqual(await by(structuredClone(schemas.enums)), { text: first.text, by: 'recall.exact' });
  assert.equal((await by(schemas['lists of types'])).by, 'local:storyteller');
});

test('a schema and what else a chat has: stop strings, system messages, penalties', async () => {
  const schema = closed({ a: { enum: ['one', 'two'] }, b: { enum: ['one', 'two'] } });
  const choice = await whole({ response_format: strict(schema), stop: '"b"', max_tokens: 60 });
  assert.match(choice.message.content, /^\{"a": ?"(one|two)", ?$/);
  await valid(schema, { presence_penalty: 2, frequency_penalty: 2, temperature: 1, seed: 4,
    messages: [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'One or two?' }] });
});

/* ---- grammars ---- */

test('a grammar of the client', async () => {
  const cases = [
    ['root ::= "yes" | "no" | "perhaps"', /^(yes|no|perhaps)$/],
    ['root ::= item{3}\nitem ::= "- " [a-z]{2,6} "\\n"', /^(- [a-z]{2,6}\n){3}$/],
    ['root ::= sum\nsum ::= num (" + " num){1,2} " = ?"\nnum ::= [1-9] [0-9]?', /^[1-9]\d?( \+ [1-9]\d?){1,2} = \?$/],
    ['root ::= "é" [α-ω]{3} "🙂"', /^é[α-ω]{3}🙂$/u],
  ];
  for (const [grammar, form] of cases) {
    const choice = await whole({ grammar, temperature: 1, seed: 2, max_tokens: 80 });
    assert.match(choice.message.content, form);
    assert.equal(choice.finish_reason, 'stop');
    assert.match((await streamed({ grammar, temperature: 1, seed: 2, max_tokens: 80 })).content, form);
  }
});

test('completions take forms and grammars for all of their prompts', async () => {
  const ask = { model: 'storyteller', prompt: ['Once', 'The ship', 'A dog'], max_tokens: 60, temperature: 1, seed: 9 };
  const { choices } = await openai.completions.create({ ...ask, grammar: 'root ::= " the " ("sea" | "land") "."' });
  assert.equal(choices.length, 3);
  for (const c of choices) {
    assert.match(c.text, /^ the (sea|land)\.$/);
    assert.equal(c.finish_reason, 'stop');
  }
  const json = await openai.completions.create({ ...ask, response_format: strict(schemas.enums) });
  for (const c of json.choices) assert.deepEqual(invalid(schemas.enums, JSON.parse(c.text)), []);
});

/* ---- reasoning ---- */

for (const model of ['think', 'control']) {
  test(`${model}: it reasons first, then the form begins`, async () => {
    const ask = question({ model, response_format: strict(schemas.enums), temperature: 0.8, seed: 5, max_tokens: 900 });
    const choice = await whole(ask);
    assert.match(choice.message.reasoning_content, /[a-z]{3}/);
    assert.ok(!choice.message.reasoning_content.includes('</think>'));
    assert.deepEqual(invalid(schemas.enums, JSON.parse(choice.message.content)), []);
    const stream = await streamed(ask);
    assert.equal(stream.reasoning, choice.message.reasoning_content);
    assert.equal(stream.content, choice.message.content);
    const { usage } = await openai.chat.completions.create(ask, noCache);
    const reasoned = usage.completion_tokens_details.reasoning_tokens;
    assert.ok(reasoned > 0 && reasoned < usage.completion_tokens);
    const calm = await whole({ ...ask, chat_template_kwargs: { enable_thinking: false } });
    assert.equal(calm.message.reasoning_content, undefined);
    assert.deepEqual(invalid(schemas.enums, JSON.parse(calm.message.content)), []);
  });
}

/* ---- what is refused ---- */

async function refused(more, param, pattern = /.{15}/) {
  const error = await fails(openai.chat.completions.create(fresh(more), noCache), 400);
  assert.equal(error.param, param, error.message);
  assert.match(error.message, pattern);
}

test('what is no form: 400, with its place', async () => {
  const format = (f) => ({ response_format: f });
  await refused(format('json'), 'response_format');
  await refused(format({ type: 'xml' }), 'response_format.type');
  await refused(format({ type: 'json_schema' }), 'response_format.json_schema');
  await refused(format({ type: 'json_schema', json_schema: { name: 'x' } }), 'response_format.json_schema.schema');
  await refused(format({ type: 'json_schema', json_schema: { name: 'x', schema: [] } }), 'response_format.json_schema.schema');
  await refused({ grammar: 5 }, 'grammar');
  await refused({ grammar: 'root ::= "a" missing' }, 'grammar', /missing/);
  await refused({ grammar: 'root ::= ("a"' }, 'grammar', /line 1/);
  await refused({ grammar: 'start ::= "a"' }, 'grammar', /root/);
  await refused({ grammar: 'root ::= "a"', response_format: { type: 'json_object' } }, 'grammar');
});

test('a schema that says nonsense: 400, with the place in it', async () => {
  const at = 'response_format.json_schema.schema';
  const wrong = [
    [{ type: 'strnig' }, at, /strnig/],
    [closed({ a: { type: 'integer', minimum: 'low' } }), `${at}.a`],
    [closed({ a: closed({ b: { $ref: '#/$defs/none' } }) }), `${at}.a.b`, /\$defs\/none/],
    [closed({ a: { $ref: 'https://example.org/schema' } }), `${at}.a`],
    [closed({ a: { type: 'string', pattern: '^(a' } }), `${at}.a`],
    [closed({ a: { type: 'string', pattern: '^(?=a)b$' } }), `${at}.a`],
    [closed({ a: { type: 'object', not: { required: ['x'] } } }), `${at}.a`, /"not"/],
    [closed({ a: { enum: [] } }), `${at}.a`],
    [closed({ a: { type: 'array', items: { type: 5 } } }), `${at}.a.items`],
    [closed({ a: { type: 'integer', minimum: 5, maximum: 4 } }), `${at}.a`],
    [false, at],
  ];
  for (const [schema, param, pattern] of wrong) await refused({ response_format: strict(schema) }, param, pattern);
});

/* Schemas and grammars that would take long or much, were there no limits: an answer or a sentence, soon. */
const evil = () => {
  const deep = (n) => (n > 0 ? closed({ a: deep(n - 1) }) : { type: 'boolean' });
  const wide = closed(Object.fromEntries(Array.from({ length: 400 }, (_, i) => [`p${i}`, { type: 'boolean' }])));
  const optional = { ...wide, required: [] };
  const doubling = { $defs: Object.fromEntries(Array.from({ length: 30 }, (_, i) =>
    [`d${i}`, i > 0 ? closed({ a: { $ref: `#/$defs/d${i - 1}` }, b: { $ref: `#/$defs/d${i - 1}` } }) : { type: 'boolean' }])),
  $ref: '#/$defs/d29' };
  const product = { allOf: Array.from({ length: 12 }, (_, i) =>
    ({ anyOf: [{ properties: { [`a${i}`]: { type: 'string' } } }, { properties: { [`b${i}`]: { type: 'string' } } }] })) };
  const text = (pattern) => closed({ a: { type: 'string', pattern } });
  return {
    'deep nesting': strict(deep(20)),
    'many members': strict(wide),
    'many members, none required': strict(optional),
    'a huge enum': strict(closed({ a: { enum: Array.from({ length: 20000 }, (_, i) => `value number ${i * 7919}`) } })),
    'a huge enum of long values': strict({ enum: Array.from({ length: 300 }, (_, i) => `${i}`.repeat(1000)) }),
    'references that double': strict(doubling),
    'a reference to itself': strict({ $ref: '#' }),
    'references in a circle': strict({ $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' }),
    'a schema that only contains itself': strict({ $defs: { a: closed({ a: { $ref: '#/$defs/a' } }) }, $ref: '#/$defs/a' }),
    'a product of alternatives': strict(product),
    'an ambiguous pattern': strict(text('^(a|a)*(a*)*(a|aa)+b$')),
    'a pattern with a look into the past': strict(text('^.*a.{200}$')),
    'counts of counts': strict(text('^((((a{1,50}){1,50}){1,50}){1,50}){1,50}$')),
    'a long string': strict(closed({ a: { type: 'string', minLength: 100000, maxLength: 1000000 } })),
    'arrays of arrays': strict({ type: 'array', minItems: 1000, maxItems: 1000,
      items: { type: 'array', minItems: 1000, maxItems: 1000, items: { type: 'array', minItems: 1000, items: { type: 'boolean' } } } }),
  };
};

const evilGrammars = {
  'left recursion': 'root ::= root "a" | "a"',
  'hidden left recursion': 'root ::= empty root "a" | "b"\nempty ::= ""?',
  'a rule that never ends': 'root ::= "a" root',
  ambiguity: 'root ::= s\ns ::= "a" | "a" s | s2 s2\ns2 ::= "a" s | "a"',
  'counts of counts': `root ::= ${'('.repeat(8)}"a"${'){1,99}'.repeat(8)}`,
  'deep brackets': `root ::= ${'('.repeat(20000)}"a"${')'.repeat(20000)}`,
  'many rules': `root ::= r0\n${Array.from({ length: 20000 }, (_, i) => `r${i} ::= "a" r${i + 1} | "b"`).join('\n')}\nr20000 ::= "c"`,
};

/* Seconds of the processor that pare has had: what others do on the machine does not count. */
function computed() {
  const fields = readFileSync(`/proc/${pare.child.pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

test('evil schemas and grammars: an answer or a sentence within a second, while others are served', async (t) => {
  const asks = [
    ...Object.entries(evil()).map(([name, f]) => [name, { response_format: f }]),
    ...Object.entries(evilGrammars).map(([name, grammar]) => [name, { grammar }]),
  ];
  let worst = 0;
  for (const [name, more] of asks) {
    const began = performance.now();
    const before = computed();
    const asked = pare.chat(fresh({ max_tokens: 4, ...more }), { 'cache-control': 'no-cache, no-store' });
    const beside = await pare.chat(fresh({ model: 'hermes', max_tokens: 2 }));
    const waited = performance.now() - began;
    const response = await asked;
    const body = await response.json();
    const took = computed() - before;
    assert.equal(beside.status, 200);
    assert.ok([200, 400, 413].includes(response.status), `${name}: ${response.status} ${JSON.stringify(body).slice(0, 200)}`);
    if (response.status !== 200) {
      assert.ok(body.error.message.length > 15 && body.error.param, JSON.stringify(body.error));
    }
    t.diagnostic(`${name}: ${response.status} after ${took.toFixed(2)} s of work, another model after ${waited.toFixed(0)} ms` +
      `${body.error ? `; ${body.error.param}: ${body.error.message.slice(0, 110)}` : ''}`);
    worst = Math.max(worst, took);
  }
  assert.ok(worst < 5, `${worst} s`); /* below one as it is built for use; builds with sanitizers take longer */
});
