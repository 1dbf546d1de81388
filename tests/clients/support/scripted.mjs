/* scripted.mjs - what the scripted providers have in common: a server that checks its requests strictly, and what it
 * answers. Each of scripted_*.mjs reads its API into a `question` and writes the `reply` in that API's documented form.
 *
 * question: {said, system, results: [text], images: [{type, bytes}], tools: [{name, schema}], choice, schema, thinking, stream}
 *   choice: 'auto', 'any', 'none' or the name of a tool; thinking: asked for; said: the last turn's words
 * reply: {text, thinking, signature, calls: [{id, name, args}], finish: 'stop' | 'tools' | 'length', usage} */
import http from 'node:http';

export const SIGNATURE = 'c2lnbmVkOm1hY2hpbmU=';
export const THOUGHT = 'The user greets. I greet back.';
export const GREETING = 'Grüße, дорогой друг! 🎉';

/* As an invoice has it; each API spells it in its own way. */
const USAGE = { prompt: 120, cached: 100, completion: 30, reasoning: 0 };

export class Refusal extends Error {
  constructor(status, message, headers = {}, details = undefined) {
    super(message);
    this.details = details;
    this.status = status;
    this.headers = headers;
  }
}

/* The request breaks the provider's rules: it answers 400, and the test sees the sentence. */
export function rule(holds, sentence) {
  if (!holds) throw new Refusal(400, sentence);
}

export function onlyMembers(object, allowed, where) {
  for (const key of Object.keys(object)) rule(allowed.includes(key), `${where}.${key}: Extra inputs are not permitted`);
}

const PERSON = { name: 'Ada', year: 1815, tags: ['first', 'best'] };
const WEATHER = { city: 'Oslo', days: 2 };
let made = 0;

/* Of the two objects that this provider knows, the one that the schema asks for. */
function valueOf(schema) {
  return Object.fromEntries(Object.entries({ ...PERSON, ...WEATHER }).filter(([key]) => schema?.properties && key in schema.properties));
}

function call({ name, schema }) {
  return { id: `call_${(++made).toString(36).padStart(8, '0')}`, name, args: valueOf(schema) };
}

export function replyTo(q) {
  const usage = { ...USAGE, reasoning: q.thinking ? 12 : 0 };
  const thinking = q.thinking ? { thinking: THOUGHT, signature: SIGNATURE } : {};
  const say = (text, finish = 'stop') => ({ text, calls: [], finish, usage, ...thinking });
  if (q.results.length > 0) return say(`The tool says: ${q.results.join(' and ')}.`);
  const named = q.tools.find((t) => t.name === q.choice);
  const wanted = named ?? q.tools[0];
  const asked = q.choice === 'any' || named || (q.choice === 'auto' && /weather/i.test(q.said));
  if (q.tools.length > 0 && q.choice !== 'none' && asked) {
    const calls = [call(wanted), ...(/both/.test(q.said) ? [call(q.tools.at(-1))] : [])];
    return { ...say(/loud/.test(q.said) ? 'I will look.' : ''), calls, finish: 'tools' };
  }
  if (q.schema) return say(JSON.stringify(valueOf(q.schema)));
  if (q.images.length > 0) return say(`I see ${q.images.map((i) => `${i.type} of ${i.bytes} bytes`).join(', ')}.`);
  if (/at length/.test(q.said)) return say('Once upon', 'length');
  if (/echo the system/.test(q.said)) return say(`System: ${q.system}`);
  return say(GREETING);
}

/* Pieces of a text as a stream has them; joined they are the text. */
export function pieces(text, n = 5) {
  const all = [...text];
  return Array.from({ length: Math.ceil(all.length / n) }, (_, i) => all.slice(i * n, i * n + n).join(''));
}

/* Written in bites that cut through lines and characters. */
export async function writeBites(response, text) {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += 61) {
    response.write(bytes.subarray(at, at + 61));
    if (at % 244 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  response.end();
}

const refusals = {
  busy: () => new Refusal(429, 'Slow down, please.', { 'retry-after': '17' }),
  denied: () => new Refusal(401, 'That key is not one of ours.'),
  refused: () => new Refusal(400, 'The third message is too witty.'),
  broken: () => new Refusal(500, 'Something went wrong in here.'),
};

export class Scripted {
  requests = [];
  key = 'provider-secret';

  /* api: {name, base, check(request), read(request) -> question, whole(reply, request) -> body,
   *       stream(reply, request) -> text, error(refusal) -> body, other(request) -> body or undefined} */
  constructor(api) {
    this.api = api;
  }

  async start() {
    this.server = http.createServer((request, response) => this.#take(request, response));
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}${this.api.base}`;
    return this;
  }

  stop() {
    this.server.closeAllConnections?.();
    return new Promise((resolve) => this.server.close(resolve));
  }

  get last() {
    return this.requests.at(-1);
  }

  #take(request, response) {
    let text = '';
    request.setEncoding('utf8').on('data', (t) => {
      text += t;
    });
    request.on('end', () => this.#answer({ method: request.method, path: request.url, headers: request.headers, text }, response));
  }

  #answer(seen, response) {
    const { api } = this;
    const json = (status, body, headers = {}) => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(JSON.stringify(body));
    };
    try {
      rule(seen.method === 'POST', 'POST alone is answered');
      rule(/^application\/json/.test(seen.headers['content-type']), 'the body is no JSON');
      seen.body = JSON.parse(seen.text);
      this.requests.push(seen);
      const model = api.model(seen);
      if (refusals[model]) throw refusals[model]();
      api.check(seen, this.key);
      const other = api.other?.(seen);
      if (other) {
        json(200, other);
        return;
      }
      const question = api.read(seen);
      const reply = replyTo(question);
      if (question.stream) {
        response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
        writeBites(response, api.stream(reply, seen));
      } else {
        json(200, api.whole(reply, seen));
      }
    } catch (error) {
      const refusal = error instanceof Refusal ? error : new Refusal(500, `${error.stack}`);
      json(refusal.status, api.error(refusal), refusal.headers);
    }
  }
}
