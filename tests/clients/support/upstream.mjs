/* upstream.mjs - a small provider that speaks OpenAI's API, well or badly: what it does is chosen by the model's name. */
import http from 'node:http';
import { sleep } from './pare.mjs';

export const usage = {
  prompt_tokens: 1234,
  completion_tokens: 56,
  total_tokens: 1290,
  prompt_tokens_details: { cached_tokens: 1000 },
};

const words = ['The', ' tide', ' comes', ' in', '.'];

/* Odd blanks and members on purpose: what passes through must not be written anew. */
function whole(more = {}, message = { role: 'assistant', content: words.join('') }) {
  return `{ "id":"up-1",  "object": "chat.completion","created":1700000000, "model":"up",\n "x_own": [1.50, "\\u00e9"],` +
    ` "choices":[{"index":0,"message":${JSON.stringify(message)},"finish_reason":"${more.finish ?? 'stop'}"}]` +
    `${more.usage ? `,"usage":${JSON.stringify(more.usage)}` : ''}}`;
}

function chunk(delta, finish = null) {
  return `{"id":"up-2", "object":"chat.completion.chunk","created":1700000000,"model":"up","x_own":1.0,` +
    `"choices":[{"index":0,"delta":${JSON.stringify(delta)},"finish_reason":${JSON.stringify(finish)}}]}`;
}

export const chunks = [
  chunk({ role: 'assistant', content: '' }),
  ...words.map((w) => chunk({ content: w })),
  chunk({}, 'stop'),
];
export const usageChunk = `{"id":"up-2","object":"chat.completion.chunk","choices":[],"usage":${JSON.stringify(usage)}}`;
export const wholeText = whole({ usage });
export const limitBody = '{"error": {"message": "Slow down, please.", "type": "tokens", "param": null, "code": "rate_limit_exceeded", "x": 1.0}}';

function json(response, status, text, headers = {}) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(text);
}

function begin(response) {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
}

function send(response, ...payloads) {
  payloads.forEach((p) => response.write(`data: ${p}\n\n`));
}

const tool = (args) => ({ tool_calls: [{ index: 0, ...(args ? { function: { arguments: args } } : { id: 'call_1', type: 'function', function: { name: 'find', arguments: '' } }) }] });

const behaviours = {
  whole: (r) => json(r, 200, wholeText),
  rounds: (r) => json(r, 200, whole({ usage: { prompt_tokens: 101, completion_tokens: 1, total_tokens: 102 } })),
  uncounted: (r) => json(r, 200, whole()),
  stream(r, ask) {
    begin(r);
    send(r, ...chunks, ...(ask.stream_options?.include_usage ? [usageChunk] : []), '[DONE]');
    r.end();
  },
  'stream-uncounted'(r) {
    begin(r);
    send(r, ...chunks, '[DONE]');
    r.end();
  },
  async step(r, ask, provider) { /* the second piece waits until the test lets it go */
    begin(r);
    send(r, ...chunks.slice(0, 2));
    await new Promise((resolve) => {
      provider.go = resolve;
    });
    send(r, ...chunks.slice(2), '[DONE]');
    r.end();
  },
  async split(r) { /* every byte by itself, CRLF, comments, an event name */
    begin(r);
    const text = `: hello\r\n\r\n${chunks.map((c) => `event: x\r\ndata: ${c}\r\n\r\n`).join('')}data: [DONE]\r\n\r\n`;
    for (let i = 0; i < text.length; i += 7) {
      r.write(text.slice(i, i + 7));
      if (i % 140 === 0) await sleep(1);
    }
    r.end();
  },
  'no-done'(r) {
    begin(r);
    send(r, ...chunks);
    r.end();
  },
  'cut-clean'(r) {
    begin(r);
    send(r, ...chunks.slice(0, 4));
    r.end();
  },
  async reset(r) {
    begin(r);
    send(r, ...chunks.slice(0, 4));
    await sleep(20);
    r.socket.resetAndDestroy ? r.socket.resetAndDestroy() : r.socket.destroy();
  },
  'reset-first': (r) => r.socket.destroy(),
  limited: (r) => json(r, 429, limitBody, { 'retry-after': '17' }),
  broken(r) {
    r.writeHead(500, { 'content-type': 'text/html' });
    r.end('<h1>Oops</h1>');
  },
  'error-inside': (r) => json(r, 200, '{"error":{"message":"The model is asleep.","type":"server_error"}}'),
  'error-event'(r) {
    begin(r);
    send(r, ...chunks.slice(0, 3), '{"error":{"message":"The model fell asleep.","type":"server_error"}}');
    r.end();
  },
  'not-json': (r) => json(r, 200, '<html>'),
  silent: () => {},
  async stalls(r) {
    begin(r);
    send(r, ...chunks.slice(0, 3));
  },
  async endless(r) {
    begin(r);
    send(r, chunks[0]);
    while (!r.destroyed && !r.socket?.destroyed) {
      send(r, chunks[1]);
      await sleep(10);
    }
  },
  'whole-for-stream': (r) => json(r, 200, wholeText),
  filtered: (r) => json(r, 200, whole({ usage, finish: 'content_filter' })),
  short: (r) => json(r, 200, whole({ usage, finish: 'length' })),
  async slow(r) {
    await sleep(150);
    json(r, 200, wholeText);
  },
  async held(r, ask, provider) { /* answers when the test lets it */
    await new Promise((resolve) => {
      provider.go = resolve;
    });
    json(r, 200, wholeText);
  },
  tools(r) {
    begin(r);
    send(r, chunk({ role: 'assistant', content: null }), chunk(tool()), chunk(tool('{"q":')), chunk(tool('"sea"}')),
      chunk({}, 'tool_calls'), '[DONE]');
    r.end();
  },
};

export const names = Object.keys(behaviours);

class Provider {
  requests = [];

  async start() {
    this.server = http.createServer((request, response) => this.#take(request, response));
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}/v1`;
    return this;
  }

  stop() {
    this.server.closeAllConnections?.();
    return new Promise((resolve) => this.server.close(resolve));
  }

  /* How often a behaviour was asked for. */
  count(name) {
    return this.requests.filter((r) => r.body.model === `up-${name}`).length;
  }

  last(name) {
    return this.requests.findLast((r) => r.body.model === `up-${name}`);
  }

  #take(request, response) {
    let text = '';
    request.setEncoding('utf8').on('data', (t) => {
      text += t;
    });
    request.on('end', () => {
      const body = JSON.parse(text);
      const seen = { path: request.url, headers: request.headers, text, body, gone: false };
      response.on('close', () => {
        seen.gone = !response.writableFinished;
      });
      this.requests.push(seen);
      behaviours[body.model.replace(/^up-/, '')](response, body, this);
    });
  }
}

export function provider() {
  return new Provider().start();
}
