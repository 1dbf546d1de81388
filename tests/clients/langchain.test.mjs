/* langchain.test.mjs - LangChain's chat models for OpenAI and Anthropic, each asking OpenAI's API, Anthropic's and Google's
 * through pare. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ChatAnthropic } from '@langchain/anthropic';
import { HumanMessage, SystemMessage, ToolMessage } from '@langchain/core/messages';
import { ChatPromptTemplate } from '@langchain/core/prompts';
import { StringOutputParser } from '@langchain/core/output_parsers';
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { fails } from './support/pare.mjs';
import { ADA, COUNTS, GREETING, KEY, PNG, PNG_SAID, THOUGHT, WEATHER_ARGS, person, providers, startCross, vectorOf, weather,
  words } from './support/cross.mjs';

let bed;

before(async () => {
  bed = await startCross();
});
after(() => bed.stop());

const clients = {
  ChatOpenAI: (model, more = {}) =>
    new ChatOpenAI({ model, apiKey: KEY, configuration: { baseURL: `${bed.pare.url}/v1` }, maxRetries: 0, timeout: 15000, ...more }),
  ChatAnthropic: (model, more = {}) =>
    new ChatAnthropic({ model, apiKey: KEY, anthropicApiUrl: bed.pare.url, maxRetries: 0, maxTokens: 1000, ...more }),
};

function checkUsage({ usage_metadata: usage }) {
  assert.equal(usage.input_tokens, COUNTS.prompt);
  assert.equal(usage.output_tokens, COUNTS.completion);
  assert.equal(usage.input_token_details.cache_read, COUNTS.cached);
}

/* ChatAnthropic counts what was read from the cache apart. Of a stream it takes the prompt's tokens from the beginning
 * alone, where only Anthropic itself knows all of them, and adds up what beginning and end say. */
function checkAnthropicUsage({ usage_metadata: usage }, provider, stream) {
  const twice = stream && provider === 'anthropic';
  if (!stream || twice) assert.equal(usage.input_tokens, COUNTS.prompt - COUNTS.cached);
  assert.equal(usage.output_tokens, COUNTS.completion + (twice ? 1 : 0));
  assert.equal(usage.input_token_details.cache_read, COUNTS.cached * (twice ? 2 : 1));
}

/* A stream's chunks as one message. */
async function gather(stream) {
  let all;
  let pieces = 0;
  for await (const chunk of stream) {
    all = all ? all.concat(chunk) : chunk;
    pieces++;
  }
  return { all, pieces };
}

const textOf = (message) =>
  (typeof message.content === 'string' ? message.content : message.content.map((b) => b.text ?? '').join(''));

const tool = { name: weather.name, description: weather.description, schema: weather.parameters };

for (const [client, make] of Object.entries(clients)) {
  for (const name of providers) {
    test(`${client} to ${name}: a chat, whole and as a stream, with the usage of the invoice`, async () => {
      const whole = await make(name).invoke([new SystemMessage('Be kind.'), new HumanMessage(words('Hello there'))]);
      assert.equal(textOf(whole), GREETING);
      const check = client === 'ChatAnthropic' ? checkAnthropicUsage : checkUsage;
      check(whole, name, false);
      const { all, pieces } = await gather(await make(name).stream([new HumanMessage(words('Hello there'))]));
      assert.equal(textOf(all), GREETING);
      assert.ok(pieces > 3);
      check(all, name, true);
    });

    test(`${client} to ${name}: a tool is called, gets its result, and the answer speaks of it`, async () => {
      const model = make(name).bindTools([tool]);
      const asked = new HumanMessage(words('What is the weather?'));
      const whole = await model.invoke([asked]);
      const { all } = await gather(await model.stream([new HumanMessage(words('What is the weather?'))]));
      for (const message of [whole, all]) {
        const [call] = message.tool_calls;
        assert.equal(call.name, 'get_weather');
        assert.deepEqual(call.args, WEATHER_ARGS);
        const result = new ToolMessage({ tool_call_id: call.id, content: words('21 degrees') });
        assert.match(textOf(await model.invoke([asked, message, result])), /^The tool says: 21 degrees/);
      }
    });

    test(`${client} to ${name}: structured output`, async () => {
      for (const method of ['jsonSchema', 'functionCalling']) {
        if (client === 'ChatAnthropic' && method === 'jsonSchema') continue; /* which it has not */
        const model = make(name).withStructuredOutput(person, { name: 'person', method });
        assert.deepEqual(await model.invoke(words('Who was first?')), ADA);
      }
    });

    test(`${client} to ${name}: an image`, async () => {
      const image = { type: 'image_url', image_url: { url: `data:image/png;base64,${PNG}` } };
      const message = new HumanMessage({ content: [{ type: 'text', text: words('What is this?') }, image] });
      assert.equal(textOf(await make(name).invoke([message])), PNG_SAID);
    });

    test(`${client} to ${name}: a chain of prompt, model and parser, asked several times at once`, async () => {
      const chain = ChatPromptTemplate.fromMessages([['system', 'Be {mood}.'], ['human', 'echo the system, {who}']])
        .pipe(make(name)).pipe(new StringOutputParser());
      const answers = await chain.batch(['calm', 'loud', 'brief'].map((mood) => ({ mood, who: words('friend') })));
      assert.deepEqual(answers, ['System: Be calm.', 'System: Be loud.', 'System: Be brief.']);
    });

    test(`${client} to ${name}: errors of the provider`, async () => {
      for (const [what, status] of [['busy', 429], ['denied', 401], ['refused', 400], ['broken', 500]]) {
        const error = await fails(make(`${name}-${what}`).invoke(words('Hello')), status);
        assert.ok(error.message.length > 10);
        await fails(make(`${name}-${what}`).stream(words('Hello')).then(gather), status);
      }
    });
  }
}

for (const name of providers) {
  test(`ChatAnthropic to ${name}: thinking`, async () => {
    const model = clients.ChatAnthropic(name, { maxTokens: 4000, thinking: { type: 'enabled', budget_tokens: 2000 } });
    const whole = await model.invoke(words('Hello'));
    assert.equal(whole.content.find((b) => b.type === 'thinking').thinking, THOUGHT);
    assert.equal(textOf(whole), GREETING);
    const { all } = await gather(await model.stream(words('Hello')));
    assert.equal(all.content.filter((b) => b.type === 'thinking').map((b) => b.thinking).join(''), THOUGHT);
  });
}

test('embeddings', async () => {
  for (const name of ['openai', 'gemini']) {
    const model = new OpenAIEmbeddings({ model: `${name}-embedding`, apiKey: KEY, configuration: { baseURL: `${bed.pare.url}/v1` }, maxRetries: 0 });
    const texts = [words('a'), words('a longer text')];
    const vectors = [...await model.embedDocuments(texts), await model.embedQuery(texts[1])];
    [...texts, texts[1]].forEach((text, i) => {
      const expected = vectorOf(text);
      const length = name === 'gemini' ? Math.hypot(...expected) : 1;
      expected.forEach((x, k) => assert.ok(Math.abs(vectors[i][k] - x / length) < 1e-5));
    });
  }
});

test('the bundled model', async () => {
  for (const make of Object.values(clients)) {
    const model = make('storyteller', { maxTokens: 16 });
    assert.match(textOf(await model.invoke(words('Tell me about the sea'))), /[a-z]{3}/);
    const { all } = await gather(await model.stream(words('Tell me about the sea')));
    assert.match(textOf(all), /[a-z]{3}/);
    assert.equal(all.usage_metadata.output_tokens, 16);
  }
});
