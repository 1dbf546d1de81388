/* keys.test.mjs - with client keys: who may ask, who may look, and that memories do not cross. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fails, fresh, start } from './support/pare.mjs';

const config = `
keys:
  - {name: anna, key: "\${ANNA_KEY}"}
  - {name: ben, key: ben-secret-key}
  - {name: carla, key: carla-secret-key, space: team}
  - {name: dora, key: dora-secret-key, space: team}
  - {name: boss, key: boss-secret-key, admin: true}
`;
const bearer = (key) => ({ authorization: `Bearer ${key}` });

let pare;

before(async () => {
  process.env.ANNA_KEY = 'anna-secret-key';
  pare = await start({ config });
});
after(() => pare.stop());

test('without a key and with a wrong one: 401, as the client expects it', async () => {
  for (const key of ['none', 'anna-secret-kez', 'anna-secret-key2']) {
    const error = await fails(pare.client(key).chat.completions.create(fresh()), 401);
    assert.equal(error.code, 'invalid_api_key');
    await fails(pare.client(key).models.list(), 401);
  }
  const bare = await pare.chat(fresh());
  assert.equal(bare.status, 401);
  assert.match((await bare.json()).error.message, /Authorization: Bearer/);
});

test('a stranger learns nothing from a broken body or a wrong model', async () => {
  assert.equal((await pare.chat('{"broken')).status, 401);
  assert.equal((await pare.chat(fresh({ model: 'gpt-9' }))).status, 401);
});

test('a key answers, and its name is in the ledger', async () => {
  const { response } = await pare.client('anna-secret-key').chat.completions.create(fresh()).withResponse();
  const row = await pare.row(response.headers.get('x-request-id'), bearer('boss-secret-key'));
  assert.equal(row.key, 'anna');
});

test('memories do not cross keys, unless they share a space', async () => {
  const by = async (key, ask) => (await pare.chat(ask, bearer(key))).headers.get('x-pare-answered-by');
  const ask = fresh();
  assert.equal(await by('anna-secret-key', ask), 'local:storyteller');
  assert.equal(await by('anna-secret-key', ask), 'recall.exact');
  assert.equal(await by('ben-secret-key', ask), 'local:storyteller');
  assert.equal(await by('carla-secret-key', ask), 'local:storyteller');
  assert.equal(await by('dora-secret-key', ask), 'recall.exact');
});

test('in flight, too, only the same space shares', async () => {
  const admin = bearer('boss-secret-key');
  const jobs = async () => [...await pare.metrics(admin)].find(([k]) => k.startsWith('pare_engine_jobs_total{'))[1];
  const before = await jobs();
  const ask = fresh({ max_tokens: 200, ignore_eos: true });
  const keys = ['anna-secret-key', 'anna-secret-key', 'ben-secret-key', 'carla-secret-key', 'dora-secret-key'];
  const answers = await Promise.all(keys.map((k) => pare.chat(ask, bearer(k))));
  assert.deepEqual(answers.map((a) => a.status), [200, 200, 200, 200, 200]);
  assert.equal(await jobs(), before + 3);
});

test("operators' pages are for admin keys only; health and the empty page are for all", async () => {
  for (const path of ['/metrics', '/api/stats', '/api/live', '/api/cache']) {
    assert.equal((await pare.get(path)).status, 401, path);
    assert.equal((await pare.get(path, bearer('anna-secret-key'))).status, 403, path);
  }
  assert.equal((await pare.get('/metrics', bearer('boss-secret-key'))).status, 200);
  assert.equal((await pare.get('/health')).status, 200);
  assert.equal((await pare.get('/')).status, 200);
  const purge = await fetch(`${pare.url}/api/cache`, { method: 'DELETE', headers: bearer('ben-secret-key') });
  assert.equal(purge.status, 403);
});
