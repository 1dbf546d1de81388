/* vercel.test.mjs - Vercel's AI SDK with its official providers, which speak OpenAI's chat completions, its responses and
 * Anthropic's messages, each asking OpenAI's API, Anthropic's and Google's through pare. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { APICallError, Output, embedMany, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { ADA, COUNTS, GREETING, KEY, PNG, PNG_SAID, THOUGHT, WEATHER_ARGS, person, providers, startCross, vectorOf, weather,
  words } from './support/cross.mjs';

let bed;
let speak;
let openai;

globalThis.AI_SDK_LOG_WARNINGS = false;

before(async () => {
  bed = await startCross();
  openai = createOpenAI({ apiKey: KEY, baseURL: `${bed.pare.url}/v1` });
  const anthropic = createAnthropic({ apiKey: KEY, baseURL: `${bed.pare.url}/v1` });
  speak = { chat: (m) => openai.chat(m), responses: (m) => openai.responses(m), messages: (m) => anthropic(m) };
});
after(() => bed.stop());

const usual = { maxRetries: 0, maxOutputTokens: 1000 };

function checkUsage(usage) {
  assert.equal(usage.inputTokens, COUNTS.prompt);
  assert.equal(usage.outputTokens, COUNTS.completion);
  assert.equal(usage.inputTokenDetails?.cacheReadTokens ?? usage.cachedInputTokens, COUNTS.cached);
}

/* Everything of a stream, as the SDK tells it; an error in it is thrown. */
async function drain(stream) {
  const seen = { text: '', pieces: 0, reasoning: '' };
  for await (const part of stream.fullStream) {
    if (part.type === 'error') throw part.error;
    if (part.type === 'text-delta') {
      seen.text += part.text;
      seen.pieces++;
    }
    if (part.type === 'reasoning-delta') seen.reasoning += part.text;
  }
  return seen;
}

const getWeather = (got) => tool({
  description: weather.description,
  inputSchema: jsonSchema(weather.parameters),
  execute: async (input) => {
    got.push(input);
    return words('21 degrees');
  },
});

for (const api of ['chat', 'responses', 'messages']) {
  for (const name of providers) {
    const model = () => speak[api](name);

    test(`${api} to ${name}: text, whole and as a stream, with the usage of the invoice`, async () => {
      const whole = await generateText({ ...usual, model: model(), system: 'Be kind.', prompt: words('Hello there') });
      assert.equal(whole.text, GREETING);
      assert.equal(whole.finishReason, 'stop');
      checkUsage(whole.usage);
      const stream = streamText({ ...usual, model: model(), prompt: words('Hello there') });
      const seen = await drain(stream);
      assert.equal(seen.text, GREETING);
      assert.ok(seen.pieces > 3);
      checkUsage(await stream.usage);
      assert.equal(await stream.finishReason, 'stop');
    });

    test(`${api} to ${name}: a tool is run and the answer speaks of its result, whole and as a stream`, async () => {
      const got = [];
      const body = () => ({ ...usual, model: model(), tools: { get_weather: getWeather(got) }, stopWhen: stepCountIs(3),
        prompt: words('What is the weather?') });
      const whole = await generateText(body());
      assert.match(whole.text, /^The tool says: "?21 degrees/);
      assert.equal(whole.steps.length, 2);
      assert.equal(whole.steps[0].finishReason, 'tool-calls');
      const stream = streamText(body());
      assert.match((await drain(stream)).text, /The tool says: "?21 degrees/);
      assert.deepEqual(got, [WEATHER_ARGS, WEATHER_ARGS]);
      checkUsage((await stream.steps)[0].usage);
    });

    test(`${api} to ${name}: an image`, async () => {
      const content = [{ type: 'text', text: words('What is this?') }, { type: 'image', image: PNG, mediaType: 'image/png' }];
      const whole = await generateText({ ...usual, model: model(), messages: [{ role: 'user', content }] });
      assert.equal(whole.text, PNG_SAID);
    });

    test(`${api} to ${name}: errors of the provider`, async () => {
      for (const [what, status] of [['busy', 429], ['denied', 401], ['refused', 400], ['broken', 500]]) {
        const body = () => ({ ...usual, model: speak[api](`${name}-${what}`), prompt: words('Hello') });
        const check = (error) => {
          assert.ok(APICallError.isInstance(error), `${error}`);
          assert.equal(error.statusCode, status);
          assert.equal(error.responseHeaders['retry-after'], what === 'busy' ? '17' : undefined);
          assert.ok(error.message.length > 10);
          return true;
        };
        await assert.rejects(generateText(body()), check);
        await assert.rejects(drain(streamText({ ...body(), onError() {} })), check);
      }
    });

    /* The SDK asks models it does not know for one call of a tool, and Google's API cannot be told that it be one alone. */
    if (api === 'messages' && name === 'gemini') {
      test(`${api} to ${name}: structured output needs drop_unsupported, and says so`, async () => {
        const body = { ...usual, model: model(), prompt: words('Who was first?'), output: Output.object({ schema: jsonSchema(person) }) };
        await assert.rejects(generateText(body), /parallel_tool_calls cannot be carried to Gemini's API.*drop_unsupported/);
      });
      continue;
    }

    test(`${api} to ${name}: structured output, whole and as a stream`, async () => {
      const body = () => ({ ...usual, model: model(), prompt: words('Who was first?'), output: Output.object({ schema: jsonSchema(person) }) });
      assert.deepEqual((await generateText(body())).output, ADA);
      const stream = streamText(body());
      await drain(stream);
      assert.deepEqual(await stream.output, ADA);
    });
  }
}

for (const name of providers) {
  test(`messages to ${name}: reasoning, whole and as a stream`, async () => {
    const body = () => ({ model: speak.messages(name), maxRetries: 0, maxOutputTokens: 4000, prompt: words('Hello'),
      providerOptions: { anthropic: { thinking: { type: 'enabled', budgetTokens: 2000 } } } });
    const whole = await generateText(body());
    assert.equal(whole.reasoningText, THOUGHT);
    assert.equal(whole.text, GREETING);
    const seen = await drain(streamText(body()));
    assert.equal(seen.reasoning, THOUGHT);
    assert.equal(seen.text, GREETING);
  });
}

test('embeddings', async () => {
  for (const name of ['openai', 'gemini']) {
    const values = [words('a'), words('a longer text')];
    const { embeddings, usage } = await embedMany({ model: openai.embedding(`${name}-embedding`), values, maxRetries: 0 });
    assert.equal(usage.tokens, 8);
    values.forEach((text, i) => {
      const expected = vectorOf(text);
      const length = name === 'gemini' ? Math.hypot(...expected) : 1;
      expected.forEach((x, k) => assert.ok(Math.abs(embeddings[i][k] - x / length) < 1e-5));
    });
  }
});

test('the bundled model, in all three ways', async () => {
  for (const api of Object.values(speak)) {
    const prompt = words('Tell me about the sea');
    const whole = await generateText({ model: api('storyteller'), prompt, maxOutputTokens: 16, maxRetries: 0 });
    assert.match(whole.text, /[a-z]{3}/);
    assert.equal(whole.usage.outputTokens, 16);
    assert.equal(whole.finishReason, 'length');
    const seen = await drain(streamText({ model: api('storyteller'), prompt: words(prompt), maxOutputTokens: 16, maxRetries: 0 }));
    assert.match(seen.text, /[a-z]{3}/);
  }
});
