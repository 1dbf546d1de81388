/* scripted_anthropic.mjs - a provider that speaks Anthropic's Messages API, as its reference at docs.claude.com has it. */
import { Refusal, Scripted, onlyMembers, pieces, rule } from './scripted.mjs';

const MEMBERS = ['model', 'max_tokens', 'messages', 'system', 'stop_sequences', 'temperature', 'top_p', 'top_k', 'stream',
  'metadata', 'service_tier', 'thinking', 'tools', 'tool_choice', 'output_config', 'cache_control'];

/* From the second on there is no sampling to be set; the SDK sends it since 1.0. */
const VERSIONS = ['2023-06-01', '2026-10-21'];

const BLOCKS = {
  text: ['text', 'cache_control', 'citations'],
  image: ['source', 'cache_control'],
  document: ['source', 'title', 'context', 'citations', 'cache_control'],
  tool_use: ['id', 'name', 'input', 'cache_control', 'caller'],
  tool_result: ['tool_use_id', 'content', 'is_error', 'cache_control'],
  thinking: ['thinking', 'signature'],
  redacted_thinking: ['data'],
};

function blocksOf(content) {
  return typeof content === 'string' ? [{ type: 'text', text: content }] : content;
}

function checkBlock(block, role, where) {
  rule(BLOCKS[block.type], `${where}.type: ${block.type} is not known`);
  onlyMembers(block, ['type', ...BLOCKS[block.type]], where);
  const assistants = ['tool_use', 'thinking', 'redacted_thinking'].includes(block.type);
  if (role === 'user') rule(!assistants, `${where}: ${block.type} blocks are the assistant's`);
  else rule(assistants || block.type === 'text', `${where}: ${block.type} blocks are the user's`);
  if (block.type === 'text') rule(block.text.length > 0, `${where}: text content blocks must be non-empty`);
  if (block.type === 'tool_use') {
    rule(/^[a-zA-Z0-9_-]+$/.test(block.id), `${where}.id: does not match ^[a-zA-Z0-9_-]+$`);
    rule(block.input && typeof block.input === 'object' && !Array.isArray(block.input), `${where}.input: must be an object`);
  }
  if (block.type === 'thinking') rule(block.signature, `${where}.signature: Field required`);
  if (block.type === 'image' && block.source.type === 'base64') {
    onlyMembers(block.source, ['type', 'media_type', 'data'], `${where}.source`);
    rule(/^image\/(png|jpeg|gif|webp)$/.test(block.source.media_type), `${where}.source.media_type: ${block.source.media_type}`);
    rule(/^[A-Za-z0-9+/]+=*$/.test(block.source.data), `${where}.source.data: invalid base64`);
  }
}

/* Results stand in the turn after their calls, all of them, and before anything else. */
function checkResults(messages, i) {
  const results = blocksOf(messages[i].content).filter((b) => b.type === 'tool_result');
  const calls = i > 0 ? blocksOf(messages[i - 1].content).filter((b) => b.type === 'tool_use').map((b) => b.id) : [];
  rule(results.every((r) => calls.includes(r.tool_use_id)), `messages.${i}: unexpected tool_use_id in tool_result blocks`);
  rule(calls.every((c) => results.some((r) => r.tool_use_id === c)), `messages.${i}: tool_use ids were found without tool_result blocks`);
  rule(blocksOf(messages[i].content).slice(0, results.length).every((b) => b.type === 'tool_result'),
    `messages.${i}: tool_result blocks must come first`);
}

function checkMessages(messages) {
  rule(Array.isArray(messages) && messages.length > 0, 'messages: at least one message is required');
  messages.forEach((m, i) => {
    onlyMembers(m, ['role', 'content'], `messages.${i}`);
    rule(m.role === 'user' || m.role === 'assistant', `messages.${i}.role: ${m.role}`);
    rule(i > 0 || m.role === 'user', 'messages: first message must use the "user" role');
    rule(blocksOf(m.content).length > 0, `messages.${i}.content: is empty`);
    blocksOf(m.content).forEach((b, k) => checkBlock(b, m.role, `messages.${i}.content.${k}`));
    if (m.role === 'user') checkResults(messages, i);
  });
}

function checkTools(body) {
  (body.tools ?? []).forEach((t, i) => {
    onlyMembers(t, ['name', 'description', 'input_schema', 'strict', 'cache_control', 'type', 'eager_input_streaming'], `tools.${i}`);
    rule(/^[a-zA-Z0-9_-]{1,128}$/.test(t.name), `tools.${i}.name: ${t.name}`);
    rule(t.input_schema?.type === 'object', `tools.${i}.input_schema.type: Field required`);
  });
  if (body.tool_choice) {
    onlyMembers(body.tool_choice, ['type', 'name', 'disable_parallel_tool_use'], 'tool_choice');
    rule(body.tools?.length > 0, 'tool_choice: may only be specified while providing tools');
  }
}

function checkThinking(body) {
  if (body.thinking?.type !== 'enabled') return;
  rule(body.thinking.budget_tokens >= 1024, 'thinking.budget_tokens: must be at least 1024');
  rule(body.thinking.budget_tokens < body.max_tokens, 'max_tokens must be greater than thinking.budget_tokens');
  rule((body.temperature ?? 1) === 1, 'temperature may only be set to 1 when thinking is enabled');
  rule(!['any', 'tool'].includes(body.tool_choice?.type), 'Thinking may not be enabled when tool_choice forces tool use.');
}

function check({ path, headers, body }, key) {
  rule(path.split('?')[0] === '/v1/messages', `not_found: ${path}`);
  rule(headers['x-api-key'] === key, 'invalid x-api-key');
  rule(!headers.authorization, 'two keys were sent');
  const version = headers['anthropic-version'];
  rule(VERSIONS.includes(version), `anthropic-version: "${version}" is not a valid version.`);
  const removed = version === '2023-06-01' ? [] : ['temperature', 'top_p', 'top_k'];
  removed.forEach((name) => rule(!(name in body), `${name}: Extra inputs are not permitted`));
  if (body.thread) { /* the SDK's helpers would rather have one, and go on without */
    throw new Refusal(400, 'This request cannot be threaded.', {}, { error_code: 'thread_unsupported_request', unsupported: ['tools'] });
  }
  onlyMembers(body, MEMBERS, 'body');
  rule(Number.isInteger(body.max_tokens) && body.max_tokens > 0, 'max_tokens: Field required');
  rule(!(body.temperature > 1), 'temperature: range: 0..1');
  rule(!(body.stop_sequences ?? []).some((s) => !s.trim()), 'stop_sequences: each must contain non-whitespace');
  if (body.output_config) onlyMembers(body.output_config, ['effort', 'format'], 'output_config');
  if (body.output_config?.format) onlyMembers(body.output_config.format, ['type', 'schema'], 'output_config.format');
  checkMessages(body.messages);
  checkTools(body);
  checkThinking(body);
}

const texts = (blocks) => blocks.filter((b) => b.type === 'text').map((b) => b.text).join('\n');

function imageOf({ source }) {
  return { type: source.media_type ?? source.url, bytes: source.data ? Buffer.from(source.data, 'base64').length : 0 };
}

function read({ body }) {
  const blocks = blocksOf(body.messages.at(-1).content);
  return {
    said: texts(blocks),
    system: texts(blocksOf(body.system ?? [])),
    results: blocks.filter((b) => b.type === 'tool_result').map((b) => (b.is_error ? 'error ' : '') + texts(blocksOf(b.content ?? ''))),
    images: blocks.filter((b) => b.type === 'image').map(imageOf),
    tools: (body.tools ?? []).map((t) => ({ name: t.name, schema: t.input_schema })),
    choice: body.tool_choice?.name ?? body.tool_choice?.type ?? 'auto',
    schema: body.output_config?.format?.schema,
    thinking: ['enabled', 'adaptive'].includes(body.thinking?.type),
    stream: body.stream === true,
  };
}

const REASONS = { stop: 'end_turn', tools: 'tool_use', length: 'max_tokens' };

function usageOf(u, output) {
  return {
    input_tokens: u.prompt - u.cached,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: u.cached,
    cache_creation: { ephemeral_5m_input_tokens: 0, ephemeral_1h_input_tokens: 0 },
    output_tokens: output,
    service_tier: 'standard',
    ...(u.reasoning > 0 && output > 1 ? { output_tokens_details: { thinking_tokens: u.reasoning } } : {}),
  };
}

function contentOf(reply) {
  return [
    ...(reply.thinking ? [{ type: 'thinking', thinking: reply.thinking, signature: reply.signature }] : []),
    ...(reply.text ? [{ type: 'text', text: reply.text }] : []),
    ...reply.calls.map((c) => ({ type: 'tool_use', id: c.id.replace('call_', 'toolu_'), name: c.name, input: c.args })),
  ];
}

function whole(reply, { body }) {
  return {
    id: 'msg_01scripted', type: 'message', role: 'assistant', model: body.model, content: contentOf(reply),
    stop_reason: REASONS[reply.finish], stop_sequence: null, usage: usageOf(reply.usage, reply.usage.completion),
  };
}

function deltasOf(block) {
  switch (block.type) {
    case 'thinking':
      return [{ ...block, thinking: '', signature: '' },
        ...pieces(block.thinking).map((thinking) => ({ type: 'thinking_delta', thinking })),
        { type: 'signature_delta', signature: block.signature }];
    case 'text':
      return [{ ...block, text: '' }, ...pieces(block.text).map((text) => ({ type: 'text_delta', text }))];
    default:
      return [{ ...block, input: {} }, { type: 'input_json_delta', partial_json: '' },
        ...pieces(JSON.stringify(block.input)).map((partial_json) => ({ type: 'input_json_delta', partial_json }))];
  }
}

function stream(reply, seen) {
  const message = { ...whole(reply, seen), content: [], stop_reason: null, usage: usageOf(reply.usage, 1) };
  const events = [{ type: 'message_start', message }, { type: 'ping' }];
  contentOf(reply).forEach((block, index) => {
    const [content_block, ...deltas] = deltasOf(block);
    events.push({ type: 'content_block_start', index, content_block },
      ...deltas.map((delta) => ({ type: 'content_block_delta', index, delta })), { type: 'content_block_stop', index });
  });
  events.push({ type: 'message_delta', delta: { stop_reason: REASONS[reply.finish], stop_sequence: null },
    usage: usageOf(reply.usage, reply.usage.completion) }, { type: 'message_stop' });
  return events.map((e) => `event: ${e.type}\ndata: ${JSON.stringify(e)}\n\n`).join('');
}

const TYPES = { 400: 'invalid_request_error', 401: 'authentication_error', 429: 'rate_limit_error', 500: 'api_error' };

function error({ status, message, details }) {
  return { type: 'error', error: { type: TYPES[status] ?? 'api_error', message, ...(details ? { details } : {}) }, request_id: 'req_scripted' };
}

export function scriptedAnthropic() {
  return new Scripted({ base: '', model: ({ body }) => body.model, check, read, whole, stream, error }).start();
}
