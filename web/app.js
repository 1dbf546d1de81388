/* app.js - the dashboard: takes the statistics and rows that /api/live sends and writes them into the page.
 *
 * What comes from requests (names of models, keys) goes in by textContent and attributes only, never as HTML. Numbers
 * stand in <data> elements: the text is for people, the value attribute is the number as the server said it.          */
import { drawCharts, openCharts } from '/web/charts.js';
import { clock, count, duration, money, percent, rate, stage as stageName } from '/web/format.js';
import { Live } from '/web/live.js';

const KEY = 'pare.key';
const TAIL_ROWS = 50;
const SPEAK_MS = 15000;
const WINDOWS = { '15m': 'the last 15 minutes', '1h': 'the last hour', '24h': 'the last 24 hours', '7d': 'the last 7 days' };

const $ = (id) => document.getElementById(id);

const page = {
  window: '1h',
  rows: new Map(), /* id -> row of the tail */
  shown: new Set(), /* ids in the table */
  paused: false,
  spokenAt: 0,
};

function element(tag, text, attributes = {}) {
  const e = document.createElement(tag);
  if (text != null) e.textContent = text;
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  return e;
}

function cell(text, value, name, className = '') {
  const td = element('td', null, { 'data-col': name });
  td.append(element('data', text, { value: value ?? '' }));
  if (className) td.className = className;
  return td;
}

/* ---- numbers ---- */

function put(name, value, text) {
  for (const e of document.querySelectorAll(`[data-stat="${name}"]`)) {
    if (e.textContent !== text) e.textContent = text;
    e.setAttribute('value', value ?? '');
  }
}

function hitsOf(stats) {
  return Object.entries(stats.by_stage).reduce((sum, [name, n]) => sum + (name.startsWith('recall') ? n : 0), 0);
}

function putNumbers(stats) {
  const hits = hitsOf(stats);
  const total = stats.tokens.prompt + stats.tokens.completion;
  const all = stats.latency_ms.all;
  put('saved_usd', stats.saved_usd, money(stats.saved_usd));
  put('cost_usd', stats.cost_usd, money(stats.cost_usd));
  put('requests', stats.requests, count(stats.requests));
  put('per_second', stats.per_second, rate(stats.per_second));
  put('hits', hits, count(hits));
  put('hit_share', stats.requests ? hits / stats.requests : '', percent(hits / stats.requests));
  put('tokens.total', total, count(total));
  put('tokens.prompt', stats.tokens.prompt, count(stats.tokens.prompt));
  put('tokens.completion', stats.tokens.completion, count(stats.tokens.completion));
  put('tokens.cached', stats.tokens.cached, count(stats.tokens.cached));
  $('cached-part').hidden = stats.tokens.cached === 0;
  for (const p of ['p50', 'p90', 'p99']) put(`latency.${p}`, all[p], duration(all[p]));
  putBad(stats.by_outcome);
}

/* Only what went wrong is worth a word. */
function putBad(outcomes) {
  const bad = ['error', 'refused', 'cancelled'].filter((name) => outcomes[name] > 0);
  $('bad').replaceChildren(...bad.flatMap((name) => {
    const words = name === 'error' && outcomes[name] > 1 ? 'errors' : name;
    const e = element('span', `${count(outcomes[name])} ${words}`, { 'data-outcome': name });
    if (name === 'error') e.className = 'wrong';
    return [', ', e];
  }));
}

/* ---- stages ---- */

const spare = ['--amber', '--red', '--grey'];

function stageColour(name) {
  if (!name || name === 'none') return 'var(--grey)';
  if (name === 'recall.exact') return 'var(--green-soft)';
  if (name === 'answer') return 'var(--blue)';
  if (name.startsWith('recall')) return 'var(--green)';
  return `var(${spare[name.length % spare.length]})`;
}

/* Hits first: the part that was not paid for stands at the left. */
function stagesOf(stats) {
  const order = (name) => (name.startsWith('recall') ? 0 : name === 'answer' ? 2 : name === 'none' ? 3 : 1);
  return Object.entries(stats.by_stage).sort(([a], [b]) => order(a) - order(b) || a.localeCompare(b));
}

function putStages(stats) {
  const stages = stagesOf(stats);
  $('stage-bar').replaceChildren(...stages.map(([name, n]) => {
    const part = element('span');
    part.style.flexGrow = n;
    part.style.background = stageColour(name);
    return part;
  }));
  $('stages').replaceChildren(...stages.map(([name, n]) => {
    const share = n / stats.requests;
    const item = element('li', null, { 'data-stage': name, title: name });
    const mark = element('i', null, { 'aria-hidden': 'true' });
    mark.style.background = stageColour(name);
    item.append(mark, element('span', stageName(name)), ' ', element('data', percent(share), { value: share }));
    return item;
  }));
}

/* ---- tables ---- */

function fillBody(table, rows) {
  $(table).tBodies[0].replaceChildren(...rows);
}

function latencyRow(label, name, times) {
  const row = element('tr', null, { 'data-stage': name });
  row.append(element('th', label, { scope: 'row' }));
  for (const p of ['p50', 'p90', 'p99']) row.append(cell(duration(times[p]), times[p], p));
  return row;
}

function putLatency(stats) {
  const rows = [latencyRow('All', 'all', stats.latency_ms.all)];
  for (const [name] of stagesOf(stats)) {
    const times = stats.latency_ms[name];
    if (times && times.p50 != null) rows.push(latencyRow(stageName(name), name, times));
  }
  rows.push(latencyRow('First token', 'first', stats.first_token_ms));
  fillBody('latency', rows);
}

function putModels(stats) {
  fillBody('models', stats.by_model.map((m) => {
    const row = element('tr', null, { 'data-model': m.model });
    row.append(
      element('th', m.model || '(none)', { scope: 'row', title: m.model }),
      cell(count(m.requests), m.requests, 'requests'),
      cell(count(m.prompt_tokens), m.prompt_tokens, 'prompt_tokens', 'wide'),
      cell(count(m.completion_tokens), m.completion_tokens, 'completion_tokens', 'wide'),
      cell(money(m.cost_usd), m.cost_usd, 'cost_usd', m.cost_usd > 0 ? '' : 'none'),
      cell(money(m.saved_usd), m.saved_usd, 'saved_usd', m.saved_usd > 0 ? 'gain' : 'none'),
    );
    return row;
  }));
}

/* ---- the local models, as they are now ---- */

function enginePart(name, value, text, label) {
  const part = element('span', `${label} `, { 'data-col': name });
  part.append(element('data', text, { value: value ?? '' }));
  return part;
}

/* ---- who answers for the other models ---- */

const circuitWords = { closed: 'well', open: 'left alone', probing: 'being tried again' };

function putTargets(groups) {
  const lines = groups.flatMap((g) => g.targets.filter((t) => t.calls > 0 || t.circuit !== 'closed').map((t) => {
    const line = element('li', null, { 'data-target': `${g.model} ${t.backend}`, 'data-circuit': t.circuit });
    const state = t.busy_ms > 0 ? `busy for ${duration(t.busy_ms)}` : circuitWords[t.circuit] || t.circuit;
    line.append(
      element('b', g.model, { title: g.model }),
      element('span', t.backend, { title: t.model }),
      enginePart('circuit', t.circuit, state, ''),
      enginePart('running', t.running, count(t.running), 'running'),
      enginePart('latency', t.latency_ms, duration(t.latency_ms), 'first token in'),
      enginePart('calls', t.calls, count(t.calls), 'calls'),
      enginePart('failures', t.failures, count(t.failures), 'failed'),
    );
    if (t.hedges > 0) line.append(enginePart('hedges', t.hedges, `${count(t.hedges_won)} of ${count(t.hedges)}`, 'hedges won'));
    return line;
  }));
  $('targets').hidden = lines.length === 0;
  $('targets').replaceChildren(...lines);
}

function putEngines(all) {
  const engines = all.filter((g) => g.kind !== 'group');
  putTargets(all.filter((g) => g.kind === 'group'));
  $('engines').hidden = engines.length === 0;
  $('engines').replaceChildren(...engines.map((g) => {
    const line = element('li', null, { 'data-engine': g.model });
    const use = g.kv_blocks ? g.kv_held / g.kv_blocks : null;
    const hits = g.lookup_tokens ? g.hit_tokens / g.lookup_tokens : null;
    line.append(
      element('b', g.model, { title: g.model }),
      enginePart('running', g.running, `${count(g.running)} of ${count(g.sequences)}`, 'running'),
      enginePart('waiting', g.waiting, count(g.waiting), 'waiting'),
      enginePart('kv_use', use, percent(use), 'KV memory in use'),
      enginePart('hit_share', hits, percent(hits), 'prompt tokens from stored prefixes'),
    );
    return line;
  }));
}

/* ---- the tail ---- */

function tailRow(r) {
  const row = element('tr', null, { 'data-id': r.id });
  const by = element('td', null, { 'data-col': 'by', title: r.backend || r.stage || 'nobody' });
  const mark = element('span', stageName(r.stage), { class: 'by' });
  mark.style.setProperty('--mark', stageColour(r.stage));
  by.append(mark);
  const outcome = r.outcome === 'ok' ? (r.stream ? 'streamed' : 'whole') : `${r.outcome} ${r.status}`;
  if (r.outcome !== 'ok') by.append(element('span', ` ${outcome}`, { class: 'note' }));
  row.append(
    cell(clock(r.time, { withSeconds: true }), r.time, 'time'),
    cell(r.model || '(none)', r.model, 'model', 'wide'),
    by,
    cell(r.key, r.key, 'key', 'mid key-column'),
    cell(`${count(r.prompt_tokens)} + ${count(r.completion_tokens)}`, r.prompt_tokens + r.completion_tokens, 'tokens', 'mid'),
    cell(money(r.cost_usd), r.cost_usd, 'cost_usd', `wide ${r.cost_usd > 0 ? '' : 'none'}`),
    cell(money(r.saved_usd), r.saved_usd, 'saved_usd', r.saved_usd > 0 ? '' : 'none'),
    cell(duration(r.total_ms), r.total_ms, 'total_ms'),
    cell(outcome, r.outcome, 'outcome', `mid outcome-${r.outcome}`),
  );
  return row;
}

/* Rows come twice, live and again in the statistics (which also bring those that a busy live stream left out). */
function addRows(rows, live) {
  for (const r of rows) page.rows.set(r.id, r);
  const newest = [...page.rows.values()].sort((a, b) => b.time - a.time).slice(0, TAIL_ROWS);
  page.rows = new Map(newest.map((r) => [r.id, r]));
  if (page.paused || newest.every((r) => page.shown.has(r.id)) && newest.length === page.shown.size) return;
  $('tail').classList.toggle('keyed', newest.some((r) => r.key));
  const kept = new Map([...$('tail').tBodies[0].rows].map((tr) => [tr.dataset.id, tr]));
  fillBody('tail', newest.map((r) => {
    const old = kept.get(r.id);
    if (old) {
      old.classList.remove('fresh'); /* moving a row would start its animation again */
      return old;
    }
    const row = tailRow(r);
    if (live) row.className = 'fresh';
    return row;
  }));
  page.shown = new Set(newest.map((r) => r.id));
}

function togglePause() {
  page.paused = !page.paused;
  $('pause').setAttribute('aria-pressed', String(page.paused));
  $('pause').textContent = page.paused ? 'Go on' : 'Pause';
  addRows([], false);
}

/* ---- what is shown ---- */

/* A screen reader is told in one sentence, when something has changed and not every two seconds. */
function speak(stats) {
  const sentence = `${money(stats.saved_usd)} saved, ${money(stats.cost_usd)} spent, ${count(stats.requests)} requests in ` +
    `${WINDOWS[page.window]}.`;
  if (performance.now() - page.spokenAt < SPEAK_MS && page.spokenAt || $('spoken').textContent === sentence) return;
  page.spokenAt = performance.now();
  $('spoken').textContent = sentence;
}

async function putExample() {
  if ($('empty-curl').textContent) return;
  let model = 'storyteller';
  try {
    const key = sessionStorage.getItem(KEY);
    const response = await fetch('/v1/models', key ? { headers: { Authorization: `Bearer ${key}` } } : {});
    model = (await response.json()).data[0].id;
  } catch { /* the example stays what it is */ }
  const auth = sessionStorage.getItem(KEY) ? " \\\n  -H 'Authorization: Bearer YOUR_KEY'" : '';
  const body = JSON.stringify({ model, max_tokens: 40, messages: [{ role: 'user', content: 'Tell me about the sea.' }] });
  $('empty-curl').textContent = `curl ${location.origin}/v1/chat/completions${auth} \\\n  -H 'Content-Type: application/json' \\\n` +
    `  -d '${body.replaceAll("'", "'\\''")}'`;
}

function show(stats) {
  const none = stats.requests === 0;
  $('empty').hidden = !none;
  $('numbers').hidden = none;
  $('empty-window').textContent = WINDOWS[page.window];
  document.body.dataset.at = stats.now; /* which statistics the page shows */
  if (none) {
    putExample();
    return;
  }
  putNumbers(stats);
  putStages(stats);
  putLatency(stats);
  putModels(stats);
  putEngines(stats.engines);
  drawCharts(stats);
  addRows(stats.recent, false);
  speak(stats);
}

/* ---- the connection ---- */

let countdown;

function setState(name, text) {
  clearInterval(countdown);
  if ($('state').dataset.state !== name || $('state-text').textContent !== text) {
    $('state').dataset.state = name;
    $('state-text').textContent = text;
  }
  document.body.classList.toggle('stale', name === 'lost' || (name === 'connecting' && document.body.classList.contains('stale')));
  $('retry').hidden = name !== 'lost';
}

function onState(s) {
  if (s.name === 'live') {
    setState('live', 'Live');
    $('key-panel').hidden = true;
  } else if (s.name === 'connecting') {
    setState(s.again ? 'lost' : 'connecting', s.again ? 'Connection lost; connecting' : 'Connecting');
  } else if (s.name === 'denied') {
    denied(s);
  } else {
    let left = s.wait;
    setState('lost', `Connection lost; next try in ${left} s`);
    $('state').title = s.sentence;
    countdown = setInterval(() => {
      $('state-text').textContent = `Connection lost; next try in ${Math.max(--left, 0)} s`;
    }, 1000);
  }
}

function denied(s) {
  const had = sessionStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  setState('denied', 'Key needed');
  $('numbers').hidden = true;
  $('empty').hidden = true;
  $('key-panel').hidden = false;
  if (had) {
    $('key-reason').textContent = s.status === 403 ? s.sentence : 'This key is not known here.';
  }
  $('key').focus();
}

const live = new Live({
  onState,
  onEvent(name, data) {
    if (name === 'stats') show(data);
    else if (name === 'requests') addRows(data, true);
  },
});

function open() {
  page.rows.clear();
  page.shown.clear();
  fillBody('tail', []);
  live.open(`/api/live?window=${encodeURIComponent(page.window)}`, sessionStorage.getItem(KEY));
}

function chooseWindow(value) {
  page.window = value;
  page.spokenAt = 0;
  const url = new URL(location.href);
  url.searchParams.set('window', value);
  history.replaceState(null, '', url);
  open();
}

function start() {
  const asked = new URL(location.href).searchParams.get('window');
  if (asked in WINDOWS) page.window = asked;
  for (const radio of document.getElementsByName('window')) {
    radio.checked = radio.value === page.window;
    radio.addEventListener('change', () => chooseWindow(radio.value));
  }
  $('retry').addEventListener('click', () => live.retry());
  $('pause').addEventListener('click', togglePause);
  $('key-form').addEventListener('submit', (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, $('key').value.trim());
    $('key').value = '';
    open();
  });
  /* Each open page costs the server a question to its database every two seconds: a hidden one asks nothing. */
  document.addEventListener('visibilitychange', () => (document.hidden ? live.close() : live.retry()));
  openCharts();
  open();
}

start();
