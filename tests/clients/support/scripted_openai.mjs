/* scripted_openai.mjs - a provider that speaks OpenAI's chat completions and embeddings, as platform.openai.com has them.
 * Reasoning comes as reasoning_content, as of DeepSeek, Qwen and vLLM: OpenAI's own shows none. */
import { Scripted, onlyMembers, pieces, rule } from './scripted.mjs';

const MEMBERS = ['model', 'messages', 'max_tokens', 'max_completion_tokens', 'temperature', 'top_p', 'n', 'stop', 'seed', 'stream',
  'stream_options', 'tools', 'tool_choice', 'parallel_tool_calls', 'response_format', 'reasoning_effort', 'user', 'metadata', 'store',
  'logprobs', 'top_logprobs', 'logit_bias', 'presence_penalty', 'frequency_penalty', 'service_tier', 'verbosity', 'modalities'];

const OF_MESSAGE = {
  system: ['role', 'content', 'name'],
  developer: ['role', 'content', 'name'],
  user: ['role', 'content', 'name'],
  assistant: ['role', 'content', 'name', 'tool_calls', 'refusal', 'reasoning_content', 'parsed'], /* parsed: the client's own */
  tool: ['role', 'content', 'tool_call_id'],
};

const PARTS = {
  text: ['type', 'text'],
  image_url: ['type', 'image_url'],
  input_audio: ['type', 'input_audio'],
  file: ['type', 'file'],
  refusal: ['type', 'refusal'],
};

function checkParts(content, where) {
  if (typeof content === 'string' || content == null) return;
  content.forEach((p, k) => {
    rule(PARTS[p.type], `Invalid value: '${p.type}' at ${where}.content[${k}].type`);
    onlyMembers(p, PARTS[p.type], `${where}.content[${k}]`);
  });
}

function checkCalls(calls, where) {
  for (const c of calls ?? []) {
    rule(c.id && c.type === 'function' && c.function.name, `${where}.tool_calls: wrong`);
    rule(typeof JSON.parse(c.function.arguments) === 'object', `${where}.tool_calls: arguments are no JSON`);
  }
}

/* The results of calls follow them at once, all of them. */
function checkOrder(messages) {
  let open = [];
  messages.forEach((m, i) => {
    if (m.role === 'tool') {
      rule(open.includes(m.tool_call_id), `messages[${i}]: messages with role 'tool' must be a response to a preceding message with 'tool_calls'`);
      open = open.filter((id) => id !== m.tool_call_id);
      return;
    }
    rule(open.length === 0, `messages[${i}]: tool_call_ids did not have response messages: ${open}`);
    open = (m.tool_calls ?? []).map((c) => c.id);
  });
  rule(open.length === 0, `tool_call_ids did not have response messages: ${open}`);
}

function checkChat(body) {
  onlyMembers(body, MEMBERS, 'body');
  rule(body.messages?.length > 0, 'messages: empty');
  body.messages.forEach((m, i) => {
    rule(OF_MESSAGE[m.role], `messages[${i}].role: ${m.role}`);
    onlyMembers(m, OF_MESSAGE[m.role], `messages[${i}]`);
    rule(m.content != null || m.tool_calls, `messages[${i}].content: null`);
    checkParts(m.content, `messages[${i}]`);
    checkCalls(m.tool_calls, `messages[${i}]`);
  });
  checkOrder(body.messages);
  (body.tools ?? []).forEach((t, i) => {
    rule(t.type === 'function', `tools[${i}].type: ${t.type}`);
    onlyMembers(t, ['type', 'function'], `tools[${i}]`);
    onlyMembers(t.function, ['name', 'description', 'parameters', 'strict'], `tools[${i}].function`);
  });
  rule(!body.stream_options || body.stream, 'stream_options: only allowed when stream is enabled');
  rule(body.tools?.length > 0 || (!body.tool_choice && body.parallel_tool_calls === undefined), 'tool_choice: only allowed with tools');
  if (body.response_format?.type === 'json_schema') {
    onlyMembers(body.response_format.json_schema, ['name', 'description', 'schema', 'strict'], 'response_format.json_schema');
    rule(/^[a-zA-Z0-9_-]{1,64}$/.test(body.response_format.json_schema.name), 'response_format.json_schema.name: missing');
  }
}

function check({ path, headers, body }, key) {
  rule(headers.authorization === `Bearer ${key}`, 'Incorrect API key provided');
  rule(!headers['x-api-key'], 'two keys were sent');
  if (path === '/v1/embeddings') {
    onlyMembers(body, ['model', 'input', 'encoding_format', 'dimensions', 'user'], 'body');
    return;
  }
  rule(path === '/v1/chat/completions', `Invalid URL (POST ${path})`);
  checkChat(body);
}

const texts = (content) =>
  (typeof content === 'string' ? content : (content ?? []).filter((p) => p.type === 'text').map((p) => p.text).join('\n'));

function imageOf({ image_url: { url } }) {
  const m = /^data:([^;]+);base64,(.*)$/.exec(url);
  return { type: m ? m[1] : url, bytes: m ? Buffer.from(m[2], 'base64').length : 0 };
}

function read({ body }) {
  const { messages } = body;
  const last = messages.findLastIndex((m) => m.role === 'assistant');
  const turn = messages.slice(last + 1);
  const choice = body.tool_choice ?? 'auto';
  return {
    said: turn.filter((m) => m.role === 'user').map((m) => texts(m.content)).join('\n'),
    system: messages.filter((m) => m.role === 'system' || m.role === 'developer').map((m) => texts(m.content)).join('\n'),
    results: turn.filter((m) => m.role === 'tool').map((m) => texts(m.content)),
    images: turn.flatMap((m) => (Array.isArray(m.content) ? m.content : [])).filter((p) => p.type === 'image_url').map(imageOf),
    tools: (body.tools ?? []).map((t) => ({ name: t.function.name, schema: t.function.parameters })),
    choice: choice.function?.name ?? (choice === 'required' ? 'any' : choice),
    schema: body.response_format?.json_schema?.schema,
    thinking: body.reasoning_effort !== undefined && body.reasoning_effort !== 'none',
    stream: body.stream === true,
  };
}

const REASONS = { stop: 'stop', tools: 'tool_calls', length: 'length' };

function usageOf(u) {
  return {
    prompt_tokens: u.prompt,
    completion_tokens: u.completion,
    total_tokens: u.prompt + u.completion,
    prompt_tokens_details: { cached_tokens: u.cached, audio_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: u.reasoning, audio_tokens: 0 },
  };
}

const head = (object, model) => ({ id: 'chatcmpl-scripted', object, created: 1700000000, model });
const written = (c) => ({ id: c.id, type: 'function', function: { name: c.name, arguments: JSON.stringify(c.args) } });

function whole(reply, { body }) {
  const message = {
    role: 'assistant',
    content: reply.text || null,
    refusal: null,
    ...(reply.thinking ? { reasoning_content: reply.thinking } : {}),
    ...(reply.calls.length ? { tool_calls: reply.calls.map(written) } : {}),
  };
  return { ...head('chat.completion', body.model), choices: [{ index: 0, message, logprobs: null, finish_reason: REASONS[reply.finish] }],
    usage: usageOf(reply.usage) };
}

function stream(reply, { body }) {
  const deltas = [
    { role: 'assistant', content: reply.text ? '' : null },
    ...(reply.thinking ? pieces(reply.thinking).map((reasoning_content) => ({ reasoning_content })) : []),
    ...pieces(reply.text).map((content) => ({ content })),
    ...reply.calls.flatMap((c, index) => [
      { tool_calls: [{ index, id: c.id, type: 'function', function: { name: c.name, arguments: '' } }] },
      ...pieces(JSON.stringify(c.args)).map((text) => ({ tool_calls: [{ index, function: { arguments: text } }] })),
    ]),
  ];
  const counted = body.stream_options?.include_usage ? { usage: null } : {};
  const chunk = (delta, finish_reason = null) =>
    ({ ...head('chat.completion.chunk', body.model), choices: [{ index: 0, delta, logprobs: null, finish_reason }], ...counted });
  const chunks = [...deltas.map((d) => chunk(d)), chunk({}, REASONS[reply.finish])];
  if (counted.usage === null) chunks.push({ ...head('chat.completion.chunk', body.model), choices: [], usage: usageOf(reply.usage) });
  return [...chunks.map((c) => JSON.stringify(c)), '[DONE]'].map((d) => `data: ${d}\n\n`).join('');
}

/* A vector that tells the text apart: its length, and 0.5. */
export const vectorOf = (text) => [text.length, 0.5, -0.25];

function base64(vector) {
  return Buffer.from(new Float32Array(vector).buffer).toString('base64');
}

function other({ path, body }) {
  if (path !== '/v1/embeddings') return undefined;
  const texts = [body.input].flat();
  return {
    object: 'list',
    model: body.model,
    data: texts.map((t, index) => ({ object: 'embedding', index,
      embedding: body.encoding_format === 'base64' ? base64(vectorOf(t)) : vectorOf(t) })),
    usage: { prompt_tokens: 8, total_tokens: 8 },
  };
}

const TYPES = { 400: 'invalid_request_error', 401: 'invalid_request_error', 429: 'rate_limit_error', 500: 'server_error' };
const CODES = { 401: 'invalid_api_key', 429: 'rate_limit_exceeded' };

function error({ status, message }) {
  return { error: { message, type: TYPES[status] ?? 'server_error', param: null, code: CODES[status] ?? null } };
}

export function scriptedOpenai() {
  return new Scripted({ base: '/v1', model: ({ body }) => body.model, check, read, whole, stream, error, other }).start();
}
