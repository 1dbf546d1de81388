/* pare.mjs - starts the program under test on a free port with a data directory of its own, and asks it things.
 *
 * PARE names the program (default build/pare). Everything stays on 127.0.0.1. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import OpenAI from 'openai';

export const root = fileURLToPath(new URL('../../../', import.meta.url));
export const program = process.env.PARE || join(root, 'build/pare');
const START_MS = 30000;
const STOP_MS = 15000;
const ANSWER_MS = 15000; /* no test waits for ever */

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/* Asks again until `ask` gives something true; fails with `what` and what it gave last. */
export async function until(what, ask, ms = 5000) {
  const end = Date.now() + ms;
  let last;
  do {
    last = await ask();
    if (last) return last;
    await sleep(25);
  } while (Date.now() < end);
  assert.fail(`${what}: not within ${ms} ms (last: ${JSON.stringify(last)})`);
}

export function temporary() {
  return mkdtempSync(join(tmpdir(), 'pare-test-'));
}

class Pare {
  log = '';

  async start({ config, data, args = [] } = {}) {
    this.ownsData = !data;
    this.data = data ?? temporary();
    const all = ['serve', '--data', this.data, ...(args.includes('--listen') ? [] : ['--listen', '127.0.0.1:0']), ...args];
    if (config) {
      writeFileSync(join(this.data, 'pare.yaml'), config);
      all.push('--config', join(this.data, 'pare.yaml'));
    }
    assert.ok(existsSync(program), `${program} is missing: run make build, or set PARE`);
    this.child = spawn(program, all, { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] });
    this.ended = new Promise((resolve) => {
      this.child.on('close', (code, signal) => resolve({ code, signal }));
    });
    this.child.stderr.setEncoding('utf8').on('data', (text) => {
      this.log += text;
    });
    let over = null;
    this.ended.then((how) => {
      over = how;
    });
    const line = await until('pare listens', () => {
      assert.equal(over, null, `pare ended: ${JSON.stringify(over)}\n${this.log}`);
      return /dashboard at (http:\/\/127\.0\.0\.1:\d+)\//.exec(this.log);
    }, START_MS);
    this.url = line[1];
    return this;
  }

  /* Ends it as an operator would; whatever a test has done, it must end cleanly (sanitizers speak up here too). */
  async stop() {
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS);
    const how = await this.ended;
    clearTimeout(timer);
    if (this.ownsData) rmSync(this.data, { recursive: true, force: true });
    assert.deepEqual(how, { code: 0, signal: null }, this.log);
  }

  client(apiKey = 'none') {
    return new OpenAI({ apiKey, baseURL: `${this.url}/v1`, maxRetries: 0, timeout: ANSWER_MS });
  }

  get(path, headers) {
    return fetch(this.url + path, { headers, signal: AbortSignal.timeout(ANSWER_MS) });
  }

  post(path, body, headers = {}) {
    const text = typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body);
    return fetch(this.url + path, {
      method: 'POST',
      body: text,
      headers: { 'content-type': 'application/json', ...headers },
      signal: AbortSignal.timeout(ANSWER_MS),
    });
  }

  chat(body, headers) {
    return this.post('/v1/chat/completions', body, headers);
  }

  async metrics(headers) {
    const text = await (await this.get('/metrics', headers)).text();
    const values = new Map();
    for (const line of text.split('\n')) {
      const m = /^([a-z_]+(?:\{.*\})?) (\S+)$/.exec(line);
      if (m) values.set(m[1], Number(m[2]));
    }
    return values;
  }

  /* A gauge or counter of the local model. */
  async engine(name) {
    for (const [key, value] of await this.metrics()) {
      if (key.startsWith(`pare_engine_${name}{`)) return value;
    }
    return assert.fail(`/metrics has no pare_engine_${name}`);
  }

  async stats(window = '1h', headers) {
    const response = await this.get(`/api/stats?window=${window}`, headers);
    assert.equal(response.status, 200);
    return response.json();
  }

  /* The ledger's row of a request; rows are written behind, within a second. */
  row(id, headers) {
    return until(`the ledger has ${id}`, async () => (await this.stats('1h', headers)).recent.find((r) => r.id === id));
  }
}

export function start(options) {
  return new Pare().start(options);
}

/* The data lines of a stream of events, and the comments. */
export function events(text) {
  const blocks = text.split('\n\n').filter(Boolean);
  return {
    data: blocks.filter((b) => b.startsWith('data: ')).map((b) => b.slice(6)),
    comments: text.split('\n').filter((l) => l.startsWith(': ')).map((l) => l.slice(2)),
  };
}

export async function fails(promise, status) {
  try {
    await promise;
  } catch (error) {
    assert.equal(error.status, status, `${error}`);
    return error;
  }
  return assert.fail(`expected status ${status}, but it was answered`);
}

let asked = 0;

/* A question that nobody has asked before. */
export function fresh(more = {}) {
  return {
    model: 'storyteller',
    messages: [{ role: 'user', content: `Tell me about the sea, part ${++asked} of ${process.pid}.` }],
    max_tokens: 16,
    temperature: 0,
    ...more,
  };
}
