/* live.js - follows a server-sent event stream by fetch, which can carry an Authorization header (EventSource cannot).
 *
 * States told to onState: connecting, live, lost (with the seconds to the next try), denied (with the status and the
 * server's sentence). After a loss it tries again after 1, 2, 4, 8 and then every 15 seconds. A stream that says nothing
 * for SILENT_MS is dead: the server sends statistics every two seconds.                                               */

const SILENT_MS = 12000;
const LONGEST_WAIT_S = 15;

/* Calls onEvent(name, data) for each event in the growing text; returns what is not complete yet. */
export function readEvents(text, onEvent) {
  const blocks = text.split(/\r?\n\r?\n/);
  const rest = blocks.pop();
  for (const block of blocks) {
    let name = 'message';
    const data = [];
    for (const line of block.split(/\r?\n/)) {
      if (line.startsWith('event:')) name = line.slice(6).trim();
      else if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
    }
    if (data.length) onEvent(name, data.join('\n'));
  }
  return rest;
}

async function sentenceOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}

export class Live {
  constructor({ onEvent, onState }) {
    this.onEvent = onEvent;
    this.onState = onState;
    this.failures = 0;
  }

  open(path, key) {
    this.close();
    this.path = path;
    this.key = key;
    this.failures = 0;
    this.#connect();
  }

  close() {
    this.abort?.abort();
    this.abort = null;
    clearTimeout(this.timer);
    clearTimeout(this.silence);
  }

  retry() {
    this.open(this.path, this.key);
  }

  async #connect() {
    const abort = new AbortController(); /* a later open() makes another one: what belongs to this one is then ignored */
    this.abort = abort;
    this.onState({ name: 'connecting', again: this.failures > 0 });
    try {
      this.#listen(abort);
      const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
      const response = await fetch(this.path, { headers, signal: abort.signal, cache: 'no-store' });
      if (abort !== this.abort) return;
      if (response.status === 401 || response.status === 403) {
        const sentence = await sentenceOf(response);
        if (abort === this.abort) {
          this.close();
          this.onState({ name: 'denied', status: response.status, sentence });
        }
        return;
      }
      if (!response.ok) throw new Error(await sentenceOf(response));
      await this.#read(response, abort);
      throw new Error('The server closed the connection.');
    } catch (error) {
      if (abort === this.abort) this.#lost(error);
    }
  }

  async #read(response, abort) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done || abort !== this.abort) return;
      this.#listen(abort);
      text = readEvents(text + value, (name, data) => {
        this.failures = 0;
        this.onState({ name: 'live' });
        this.onEvent(name, JSON.parse(data));
      });
    }
  }

  /* Starts the wait for the next sign of life anew. */
  #listen(abort) {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => abort.abort(new Error('The server has gone silent.')), SILENT_MS);
  }

  #lost(error) {
    this.close();
    const wait = Math.min(2 ** this.failures, LONGEST_WAIT_S);
    this.failures++;
    this.onState({ name: 'lost', wait, sentence: error.message });
    this.timer = setTimeout(() => this.#connect(), wait * 1000);
  }
}
