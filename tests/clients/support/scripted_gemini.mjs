/* scripted_gemini.mjs - a provider that speaks Google's generateContent and batchEmbedContents, as ai.google.dev has them. */
import { Scripted, onlyMembers, pieces, rule } from './scripted.mjs';
import { vectorOf } from './scripted_openai.mjs';

const MEMBERS = ['contents', 'systemInstruction', 'tools', 'toolConfig', 'generationConfig', 'safetySettings', 'cachedContent',
  'service_tier'];
const CONFIG = ['stopSequences', 'responseMimeType', 'responseSchema', 'responseJsonSchema', 'responseModalities', 'candidateCount',
  'maxOutputTokens', 'temperature', 'topP', 'topK', 'seed', 'presencePenalty', 'frequencyPenalty', 'responseLogprobs', 'logprobs',
  'thinkingConfig', 'mediaResolution'];
const KINDS = ['text', 'inlineData', 'fileData', 'functionCall', 'functionResponse'];

function checkPart(part, role, where) {
  onlyMembers(part, [...KINDS, 'thought', 'thoughtSignature'], where);
  const kinds = KINDS.filter((k) => k in part);
  rule(kinds.length === 1, `${where}: oneof field 'data' is set ${kinds.length} times`);
  if (part.functionCall) {
    rule(role === 'model', `${where}: a function call is the model's`);
    onlyMembers(part.functionCall, ['id', 'name', 'args'], `${where}.functionCall`);
    rule(typeof part.functionCall.args === 'object', `${where}.functionCall.args: no object`);
  }
  if (part.functionResponse) {
    onlyMembers(part.functionResponse, ['id', 'name', 'response', 'parts', 'willContinue', 'scheduling'], `${where}.functionResponse`);
    rule(part.functionResponse.name, `${where}.functionResponse.name: Name cannot be empty`);
    const { response } = part.functionResponse;
    rule(response && typeof response === 'object' && !Array.isArray(response), `${where}.functionResponse.response: no object`);
  }
  if (part.inlineData) {
    onlyMembers(part.inlineData, ['mimeType', 'data'], `${where}.inlineData`);
    rule(/^[a-z]+\/[a-z0-9.+-]+$/.test(part.inlineData.mimeType), `${where}.inlineData.mimeType`);
    rule(/^[A-Za-z0-9+/]+=*$/.test(part.inlineData.data), `${where}.inlineData.data: Base64 decoding failed`);
  }
}

function checkContents(contents) {
  rule(contents?.length > 0, 'GenerateContentRequest.contents: contents is not specified');
  contents.forEach((c, i) => {
    onlyMembers(c, ['role', 'parts'], `contents[${i}]`);
    rule(c.role === 'user' || c.role === 'model', 'Please use a valid role: user, model.');
    rule(c.parts.length > 0, `contents[${i}].parts: must not be empty`);
    c.parts.forEach((p, k) => checkPart(p, c.role, `contents[${i}].parts[${k}]`));
    const calls = i > 0 ? contents[i - 1].parts.filter((p) => p.functionCall).length : 0;
    const responses = c.parts.filter((p) => p.functionResponse).length;
    rule(calls === responses, 'Please ensure that the number of function response parts is equal to the number of function call parts ' +
      'of the function call turn.');
  });
}

function checkTools(tools) {
  for (const t of tools ?? []) {
    onlyMembers(t, ['functionDeclarations', 'googleSearch', 'codeExecution', 'urlContext'], 'tools');
    for (const f of t.functionDeclarations) {
      onlyMembers(f, ['name', 'description', 'parameters', 'parametersJsonSchema', 'response', 'behavior'], 'functionDeclarations');
      rule(/^[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}$/.test(f.name), `Invalid function name: ${f.name}`);
    }
  }
}

function pathOf(path) {
  const m = /^\/v1beta\/models\/([^:/]+):(\w+)(\?alt=sse)?$/.exec(path);
  rule(m, `Requested entity was not found: ${path}`);
  return { model: decodeURIComponent(m[1]), verb: m[2], sse: m[3] !== undefined };
}

function check({ path, headers, body }, key) {
  const { verb, sse } = pathOf(path);
  rule(headers['x-goog-api-key'] === key, 'API key not valid. Please pass a valid API key.');
  rule(!headers.authorization, 'two keys were sent');
  if (verb === 'batchEmbedContents') {
    onlyMembers(body, ['requests'], 'body');
    return;
  }
  rule(verb === 'generateContent' ? !sse : verb === 'streamGenerateContent' && sse, `Unknown verb: ${path}`);
  onlyMembers(body, MEMBERS, 'body');
  onlyMembers(body.generationConfig ?? {}, CONFIG, 'generationConfig');
  rule(!body.generationConfig?.responseJsonSchema || body.generationConfig.responseMimeType === 'application/json',
    'responseJsonSchema needs responseMimeType application/json');
  onlyMembers(body.generationConfig?.thinkingConfig ?? {}, ['includeThoughts', 'thinkingBudget', 'thinkingLevel'], 'thinkingConfig');
  checkContents(body.contents);
  checkTools(body.tools);
  for (const p of body.systemInstruction?.parts ?? []) rule(typeof p.text === 'string', 'systemInstruction: text alone');
}

const texts = (parts) => parts.filter((p) => p.text !== undefined && !p.thought).map((p) => p.text).join('\n');

function resultOf({ functionResponse: { response } }) {
  if ('error' in response) return `error ${response.error}`;
  return typeof response.output === 'string' ? response.output : JSON.stringify(response);
}

function imageOf(part) {
  return part.inlineData ? { type: part.inlineData.mimeType, bytes: Buffer.from(part.inlineData.data, 'base64').length }
    : { type: part.fileData.fileUri, bytes: 0 };
}

const CHOICES = { AUTO: 'auto', VALIDATED: 'auto', ANY: 'any', NONE: 'none' };

function read({ path, body }) {
  const { parts } = body.contents.at(-1);
  const calling = body.toolConfig?.functionCallingConfig ?? { mode: 'AUTO' };
  const tools = (body.tools ?? []).flatMap((t) => t.functionDeclarations)
    .map((f) => ({ name: f.name, schema: f.parametersJsonSchema }));
  return {
    said: texts(parts),
    system: texts(body.systemInstruction?.parts ?? []),
    results: parts.filter((p) => p.functionResponse).map(resultOf),
    images: parts.filter((p) => p.inlineData || p.fileData).map(imageOf),
    tools,
    choice: calling.allowedFunctionNames?.length === 1 ? calling.allowedFunctionNames[0] : CHOICES[calling.mode],
    schema: body.generationConfig?.responseJsonSchema,
    thinking: body.generationConfig?.thinkingConfig?.includeThoughts === true,
    stream: pathOf(path).verb === 'streamGenerateContent',
  };
}

const REASONS = { stop: 'STOP', tools: 'STOP', length: 'MAX_TOKENS' };

function usageOf(u) {
  return {
    promptTokenCount: u.prompt,
    cachedContentTokenCount: u.cached,
    candidatesTokenCount: u.completion - u.reasoning,
    ...(u.reasoning ? { thoughtsTokenCount: u.reasoning } : {}),
    totalTokenCount: u.prompt + u.completion,
    promptTokensDetails: [{ modality: 'TEXT', tokenCount: u.prompt }],
  };
}

/* The signature of thoughts goes with the first call, else with the last piece of text. */
function partsOf(reply, cut) {
  const split = cut ? pieces : (text) => (text ? [text] : []);
  const said = split(reply.text).map((text) => ({ text }));
  const calls = reply.calls.map((c) => ({ functionCall: { id: c.id, name: c.name, args: c.args } }));
  const bearer = calls[0] ?? said.at(-1);
  if (reply.signature && bearer) bearer.thoughtSignature = reply.signature;
  return [...(reply.thinking ? split(reply.thinking).map((text) => ({ text, thought: true })) : []), ...said, ...calls];
}

function answer(parts, finishReason, u, model) {
  return {
    candidates: [{ content: { parts, role: 'model' }, index: 0, ...(finishReason ? { finishReason } : {}) }],
    usageMetadata: u, modelVersion: model, responseId: 'scripted-gemini',
  };
}

function whole(reply, { path }) {
  return answer(partsOf(reply, false), REASONS[reply.finish], usageOf(reply.usage), pathOf(path).model);
}

/* Each chunk has the counts so far. */
function stream(reply, { path }) {
  const parts = partsOf(reply, true);
  const early = { promptTokenCount: reply.usage.prompt, totalTokenCount: reply.usage.prompt };
  return parts.map((p, i) => answer([p], i === parts.length - 1 ? REASONS[reply.finish] : undefined,
    i === parts.length - 1 ? usageOf(reply.usage) : early, pathOf(path).model))
    .map((c) => `data: ${JSON.stringify(c)}\r\n\r\n`).join('');
}

function other({ path, body }) {
  const { model, verb } = pathOf(path);
  if (verb !== 'batchEmbedContents') return undefined;
  for (const r of body.requests) rule(r.model === `models/${model}`, `requests: model ${r.model} is not ${model}`);
  return { embeddings: body.requests.map((r) => ({ values: vectorOf(r.content.parts[0].text) })), usageMetadata: { promptTokenCount: 8 } };
}

const CODES = { 400: 'INVALID_ARGUMENT', 401: 'UNAUTHENTICATED', 429: 'RESOURCE_EXHAUSTED', 500: 'INTERNAL' };

function error({ status, message }) {
  return { error: { code: status, message, status: CODES[status] ?? 'UNKNOWN' } };
}

export function scriptedGemini() {
  return new Scripted({ base: '/v1beta', model: ({ path }) => pathOf(path).model, check, read, whole, stream, error, other }).start();
}
