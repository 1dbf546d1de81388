/* cross.mjs - pare before three scripted providers and the bundled model, for tests that any client must pass with any of
 * them. */
import assert from 'node:assert/strict';
import { start } from './pare.mjs';
import { scriptedAnthropic } from './scripted_anthropic.mjs';
import { scriptedGemini } from './scripted_gemini.mjs';
import { scriptedOpenai } from './scripted_openai.mjs';

export { GREETING, SIGNATURE, THOUGHT } from './scripted.mjs';
export { vectorOf } from './scripted_openai.mjs';

export const providers = ['openai', 'anthropic', 'gemini'];
const upstream = { openai: 'gpt-4.1', anthropic: 'claude-sonnet-4-5', gemini: 'gemini-2.5-flash' };
const refusals = ['busy', 'denied', 'refused', 'broken'];

export const KEY = 'client-secret';

/* Of the provider's reply, in the ledger's words. */
export const COUNTS = { prompt: 120, cached: 100, completion: 30, reasoning: 12 };

/* 68 bytes, one pixel. */
export const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVQIW2NgAAIAAAUAAR4f7BQAAAAASUVORK5CYII=';
export const PNG_SAID = `I see image/png of ${Buffer.from(PNG, 'base64').length} bytes.`;

export const person = {
  type: 'object',
  properties: { name: { type: 'string' }, year: { type: 'integer' }, tags: { type: 'array', items: { type: 'string' } } },
  required: ['name', 'year', 'tags'],
  additionalProperties: false,
};
export const ADA = { name: 'Ada', year: 1815, tags: ['first', 'best'] };

export const weather = {
  name: 'get_weather',
  description: 'The weather of a city.',
  parameters: {
    type: 'object',
    properties: { city: { type: 'string' }, days: { type: 'integer' } },
    required: ['city', 'days'],
    additionalProperties: false,
  },
};
export const WEATHER_ARGS = { city: 'Oslo', days: 2 };

function modelLines(name) {
  return [
    `  ${name}: {backend: ${name}, model: ${upstream[name]}, price: metered, retries: 0}`,
    ...refusals.map((r) => `  ${name}-${r}: {backend: ${name}, model: ${r}, price: metered, retries: 0}`),
    ...(name === 'anthropic' ? [] : [`  ${name}-embedding: {backend: ${name}, model: embedding-up, price: metered, retries: 0}`]),
  ].join('\n');
}

/* {pare, up: {openai, anthropic, gemini}, stop}. `more`: further lines of pare.yaml. */
export async function startCross(more = '') {
  const up = { openai: await scriptedOpenai(), anthropic: await scriptedAnthropic(), gemini: await scriptedGemini() };
  const backend = (name) => `  ${name}: {dialect: ${name}, base_url: "${up[name].url}", api_key: ${up[name].key}}`;
  const pare = await start({
    config: `
backends:
${providers.map(backend).join('\n')}
prices:
  metered: {input: 2.50, cached_input: 1.25, output: 10}
models:
${providers.map(modelLines).join('\n')}
  storyteller: {file: bundled}
keys:
  - {name: ann, key: ${KEY}, admin: true}
${more}`,
  });
  return {
    pare,
    up,
    async stop() {
      await pare.stop();
      await Promise.all(Object.values(up).map((u) => u.stop()));
    },
  };
}

let asked = 0;

/* Words that nobody has said before, so that nothing comes from memory. */
export function words(text) {
  return `${text} (${++asked} of ${process.pid})`;
}

/* The ledger has what the provider billed. */
export async function checkRow(pare, id, { reasoning = 0 } = {}) {
  const row = await pare.row(id, { authorization: `Bearer ${KEY}` });
  assert.equal(row.outcome, 'ok');
  assert.equal(row.prompt_tokens, COUNTS.prompt);
  assert.equal(row.completion_tokens, COUNTS.completion);
  assert.equal(row.cost_usd, (20 * 2.5 + 100 * 1.25 + 30 * 10) / 1e6);
  if (row.reasoning_tokens !== undefined) assert.equal(row.reasoning_tokens, reasoning);
  return row;
}
