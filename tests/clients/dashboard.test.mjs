/* dashboard.test.mjs - the page in a real Chromium: are the numbers on it those of /api/stats? */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { fresh, start, until } from './support/pare.mjs';

const browsers = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome', '/usr/bin/google-chrome-stable'];
const executablePath = process.env.CHROMIUM || browsers.find((p) => existsSync(p));
const skip = executablePath ? false : 'no Chromium here (set CHROMIUM, or install the package chromium)';
const config = `
models:
  storyteller: {file: bundled, stands_in_for: gpt-4o-mini}
  <b id="hacked">x: {file: bundled, stands_in_for: gpt-4o-mini}
`;
const desktop = { viewport: { width: 1200, height: 900 } };
const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

let browser;
let pare;

before(async () => {
  if (skip) {
    console.log(`dashboard.test: skipped, ${skip}`);
    return;
  }
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
});
after(async () => {
  await browser?.close();
});

/* A page on the dashboard whose errors fail the test. */
async function open(options, path = '/') {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (e) => errors.push(e.message));
  page.on('console', (m) => {
    /* the refused question without a key is expected where keys are used */
    if (m.type() === 'error' && !/40[13]/.test(m.text())) errors.push(m.text());
  });
  await page.goto(pare.url + path);
  return {
    page,
    async close() {
      await context.close();
      assert.deepEqual(errors, []);
    },
  };
}

async function ask(headers) {
  const asks = [fresh(), fresh({ stream: true }), fresh({ model: '<b id="hacked">x' })];
  for (const body of [...asks, asks[0], asks[1], asks[0], fresh({ model: 'gpt-9<script>' })]) {
    await (await pare.chat(body, headers)).text();
  }
  await until('all is written', async () => (await pare.metrics(headers)).get('pare_ledger_waiting') === 0 &&
    (await pare.stats('1h', headers)).requests === 7);
}

function value(page, name) {
  return page.locator(`[data-stat="${name}"]`).first().getAttribute('value').then(Number);
}

function text(page, name) {
  return page.locator(`[data-stat="${name}"]`).first().textContent();
}

async function same(page, headers) {
  const stats = await pare.stats('1h', headers);
  const hits = stats.by_stage['recall.exact'];
  await until('the page shows them', async () => (await value(page, 'requests')) === stats.requests);
  const expected = {
    requests: stats.requests,
    saved_usd: stats.saved_usd,
    cost_usd: stats.cost_usd,
    hits,
    hit_share: hits / stats.requests,
    'tokens.prompt': stats.tokens.prompt,
    'tokens.completion': stats.tokens.completion,
    'tokens.total': stats.tokens.prompt + stats.tokens.completion,
    'latency.p50': stats.latency_ms.all.p50,
    'latency.p90': stats.latency_ms.all.p90,
    'latency.p99': stats.latency_ms.all.p99,
  };
  for (const [name, n] of Object.entries(expected)) assert.equal(await value(page, name), n, name);
  assert.equal(await text(page, 'requests'), String(stats.requests));
  assert.equal(await text(page, 'hit_share'), `${Math.round(100 * hits / stats.requests)} %`);
  const shown = Number((await text(page, 'saved_usd')).replace('$', ''));
  assert.ok(Math.abs(shown - stats.saved_usd) <= stats.saved_usd / 100, `${shown} for ${stats.saved_usd}`);
  for (const [name, n] of Object.entries(stats.by_stage)) {
    assert.equal(Number(await page.locator(`#stages [data-stage="${name}"] data`).getAttribute('value')), n / stats.requests);
  }
  for (const m of stats.by_model) {
    const row = page.locator('#models tbody tr').filter({ has: page.locator('th', { hasText: m.model }) });
    for (const column of ['requests', 'prompt_tokens', 'completion_tokens', 'cost_usd', 'saved_usd']) {
      assert.equal(Number(await row.locator(`[data-col="${column}"] data`).getAttribute('value')), m[column], `${m.model} ${column}`);
    }
  }
  assert.equal(await page.locator('#engines li').count(), stats.engines.length);
  for (const g of stats.engines) {
    const line = page.locator('#engines li').filter({ has: page.locator('b', { hasText: g.model }) });
    const shown = async (name) => Number(await line.locator(`[data-col="${name}"] data`).getAttribute('value'));
    assert.equal(await shown('running'), g.running);
    assert.equal(await shown('waiting'), g.waiting);
    assert.equal(await shown('kv_use'), g.kv_held / g.kv_blocks);
    assert.ok(g.lookup_tokens > 0);
    assert.equal(await shown('hit_share'), g.hit_tokens / g.lookup_tokens);
  }
  for (const p of ['p50', 'p90', 'p99']) {
    const cell = page.locator(`#latency tr[data-stage="recall.exact"] [data-col="${p}"] data`);
    assert.equal(Number(await cell.getAttribute('value')), stats.latency_ms['recall.exact'][p]);
  }
  assert.equal(await page.locator('#tail tbody tr').count(), stats.recent.length);
  for (const r of stats.recent) assert.equal(await page.locator(`#tail tr[data-id="${r.id}"]`).count(), 1);
  return stats;
}

/* Nothing sticks out at the sides. */
async function fits(page) {
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(wide <= room, `${wide} pixels in ${room}`);
}

/* The contrast of an element's text against what is behind it, as WCAG counts it. A row that the page has just replaced has
 * no style any more: then the one in its place is looked at. */
async function contrast(page, selector) {
  for (;;) {
    const ratio = await contrastNow(page, selector);
    if (ratio) return ratio;
  }
}

function contrastNow(page, selector) {
  return page.locator(selector).first().evaluate((element) => {
    if (!element.isConnected) return null;
    const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = (colour) => parts(colour).slice(0, 3)
      .map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    let behind = element;
    while (parts(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
}

test('without keys', { skip }, async (t) => {
  pare = await start({ config });

  await t.test('an empty page says what to do, and fills by itself', async () => {
    const { page, close } = await open(desktop);
    await page.locator('#empty').waitFor();
    assert.match(await page.locator('#empty-curl').textContent(), new RegExp(`^curl ${pare.url}/v1/chat/completions`));
    assert.equal(await page.locator('#numbers').isVisible(), false);
    await ask();
    await page.locator('#numbers').waitFor();
    assert.equal(await page.locator('#empty').isVisible(), false);
    await same(page);
    await close();
  });

  await t.test('the numbers are those of /api/stats: desktop, phone, light and dark', async () => {
    for (const options of [desktop, { ...desktop, colorScheme: 'dark' }, phone, { ...phone, colorScheme: 'dark' }]) {
      const { page, close } = await open(options);
      await same(page);
      await fits(page);
      assert.equal(await page.locator('#state').getAttribute('data-state'), 'live');
      for (const selector of ['.saved data', '.more', 'thead th', '.windows span', '#engines b', '#engines data', '#tail td:first-child', 'td.gain', '#state-text']) {
        const ratio = await contrast(page, selector);
        assert.ok(ratio >= 4.5, `${selector}: ${ratio.toFixed(2)} (${options.colorScheme ?? 'light'})`);
      }
      await close();
    }
  });

  await t.test('charts hold the series, and say so to those who cannot see them', async () => {
    const { page, close } = await open(desktop);
    const stats = await same(page);
    const drawn = await page.evaluate(() => window.Chart.getChart('chart-requests').data.datasets
      .map((d) => d.data.reduce((a, b) => a + b, 0)));
    assert.deepEqual(drawn, [stats.by_stage['recall.exact'], stats.requests - stats.by_stage['recall.exact']]);
    const money = await page.evaluate(() => window.Chart.getChart('chart-money').data.datasets[1].data.reduce((a, b) => a + b, 0));
    assert.ok(Math.abs(money - stats.saved_usd) < 1e-9);
    assert.match(await page.locator('#chart-requests').getAttribute('aria-label'), new RegExp(`${stats.requests} in all`));
    assert.match(await page.locator('#spoken').textContent(), /saved.*requests in the last hour/);
    await close();
  });

  await t.test('a new request appears by itself; paused it does not', async () => {
    const { page, close } = await open(desktop);
    await same(page);
    const id = async () => {
      const response = await pare.chat(fresh());
      await response.text();
      return response.headers.get('x-request-id');
    };
    const one = await id();
    await page.locator(`#tail tr[data-id="${one}"]`).waitFor({ timeout: 3000 });
    await page.locator('#pause').click();
    const two = await id();
    await until('the numbers go on', async () => (await value(page, 'requests')) === 9);
    assert.equal(await page.locator(`#tail tr[data-id="${two}"]`).count(), 0);
    await page.locator('#pause').click();
    await page.locator(`#tail tr[data-id="${two}"]`).waitFor();
    await close();
  });

  await t.test('what requests say is text, never HTML', async () => {
    const { page, close } = await open(desktop);
    await same(page);
    assert.equal(await page.locator('#hacked').count(), 0);
    assert.equal(await page.locator('#models th', { hasText: '<b id="hacked">x' }).count(), 1);
    assert.equal(await page.locator('script:not([src])').count(), 0);
    await close();
  });

  await t.test('the time span can be chosen, by keyboard too, and stays in the address', async () => {
    const { page, close } = await open(desktop, '/?window=15m');
    await until('it is taken', async () => (await value(page, 'requests')) === 9);
    assert.equal(await page.locator('input[value="15m"]').isChecked(), true);
    await page.locator('input[value="15m"]').focus();
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowRight');
    await page.waitForURL(/window=24h/);
    await until('numbers again', async () => page.locator('#numbers').isVisible());
    await until('a day has longer steps', () => page.evaluate(() => {
      const t = window.Chart.getChart('chart-requests').data.labels;
      return t[1] - t[0] >= 600;
    }));
    await close();
  });

  await t.test('every control and table has a name', async () => {
    const { page, close } = await open(desktop);
    await same(page);
    const nameless = await page.evaluate(() => [
      ...[...document.querySelectorAll('input')].filter((e) => !e.labels.length && !e.ariaLabel),
      ...[...document.querySelectorAll('button')].filter((e) => !e.textContent.trim()),
      ...[...document.querySelectorAll('table')].filter((e) => !e.caption || ![...e.tHead.rows[0].cells].every((c) => c.scope === 'col')),
      ...[...document.querySelectorAll('canvas')].filter((e) => !e.getAttribute('aria-label')),
    ].map((e) => e.outerHTML.slice(0, 80)));
    assert.deepEqual(nameless, []);
    assert.equal(await page.locator('html').getAttribute('lang'), 'en');
    await close();
  });

  await t.test('a lost connection is said, and found again', async () => {
    const context = await browser.newContext(desktop);
    const page = await context.newPage();
    await page.goto(pare.url);
    await page.locator('#state[data-state="live"]').waitFor();
    const old = pare.url;
    const { data } = pare;
    pare.ownsData = false;
    await pare.stop();
    await page.locator('#state[data-state="lost"]').waitFor();
    assert.match(await page.locator('#state-text').textContent(), /Connection lost/);
    pare = await start({ data, config, args: ['--listen', old.slice('http://'.length)] });
    assert.equal(pare.url, old);
    await page.locator('#state[data-state="live"]').waitFor({ timeout: 10000 });
    assert.equal(await page.locator('body.stale').count(), 0);
    await context.close();
    pare.ownsData = true;
  });

  await pare.stop();
});

test('with keys', { skip }, async (t) => {
  pare = await start({
    config: 'keys:\n  - {name: anna, key: anna-secret-key}\n  - {name: boss, key: boss-secret-key, admin: true}\n' + config.slice(1),
  });
  const admin = { authorization: 'Bearer boss-secret-key' };
  await ask(admin);

  await t.test('the page asks for a key, says when it is the wrong one, and keeps the right one', async () => {
    const { page, close } = await open(phone);
    await page.locator('#key-panel').waitFor();
    assert.equal(await page.locator('#numbers').isVisible(), false);
    for (const [key, sentence] of [['nobody-knows-me', /not known/], ['anna-secret-key', /admin: true/]]) {
      await page.getByLabel('Admin key').fill(key);
      await page.getByRole('button', { name: 'Show' }).click();
      await until('it is refused', async () => sentence.test(await page.locator('#key-reason').textContent()) &&
        (await page.locator('#state').getAttribute('data-state')) === 'denied');
    }
    await page.getByLabel('Admin key').fill('boss-secret-key');
    await page.keyboard.press('Enter');
    await page.locator('#numbers').waitFor();
    await same(page, admin);
    await fits(page);
    assert.equal(await page.evaluate(() => document.cookie + JSON.stringify(localStorage)), '{}');
    await page.reload();
    await page.locator('#numbers').waitFor();
    await close();
  });

  await pare.stop();
});
