/* gguf.mjs - a model file with other metadata: the same weights behind another chat template, context or vocabulary.
 *
 * GGUF v3: magic, version, counts of tensors and of key-value pairs, the pairs, the tensors' descriptions with offsets
 * from the beginning of the data, padding, the data. Only the pairs change, so the rest is copied as it stands. */
import { readFileSync, writeFileSync } from 'node:fs';

const SIZES = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
const STRING = 8;
const ARRAY = 9;

export const CONTROL = 3; /* of tokenizer.ggml.token_type */
export const USER_DEFINED = 4;

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  u32() {
    this.at += 4;
    return this.bytes.readUInt32LE(this.at - 4);
  }

  u64() {
    this.at += 8;
    return Number(this.bytes.readBigUInt64LE(this.at - 8));
  }

  string() {
    const n = this.u64();
    this.at += n;
    return this.bytes.toString('utf8', this.at - n, this.at);
  }

  skip(type) {
    if (type === STRING) {
      this.string();
    } else if (type === ARRAY) {
      const inner = this.u32();
      for (let n = this.u64(); n > 0; n--) this.skip(inner);
    } else {
      this.at += SIZES[type];
    }
  }
}

function u32(n) {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(n);
  return b;
}

function string(text) {
  const b = Buffer.from(text);
  const n = Buffer.alloc(8);
  n.writeBigUInt64LE(BigInt(b.length));
  return Buffer.concat([n, b]);
}

function strings(value) {
  const r = new Reader(value);
  r.at = 4; /* behind the type of the items */
  return Array.from({ length: r.u64() }, () => r.string());
}

/* The value of a pair after the changes. */
function changed(key, value, texts, changes) {
  const tokens = Object.entries(changes.tokens ?? {});
  switch (key.replace(/^.*[.]context_length$/, 'context_length')) {
    case 'tokenizer.chat_template':
      return changes.template ? string(changes.template) : value;
    case 'context_length':
      return changes.context ? u32(changes.context) : value;
    case 'tokenizer.ggml.eos_token_id':
    case 'tokenizer.ggml.eot_token_id':
      return changes.end ? u32(texts.indexOf(changes.end)) : value;
    case 'tokenizer.ggml.tokens':
      return Buffer.concat([value.subarray(0, 12), ...texts.map((t) => string(changes.tokens?.[t]?.text ?? t))]);
    case 'tokenizer.ggml.token_type': {
      const types = Buffer.from(value);
      tokens.forEach(([text, to]) => types.writeUInt32LE(to.type, 12 + 4 * texts.indexOf(text)));
      return types;
    }
    default:
      return value;
  }
}

/* changes, all optional: template; context, in tokens; tokens, by their texts: {text, type}; end, the text of the token
 * that ends an answer. */
export function patched(from, to, changes) {
  const bytes = readFileSync(from);
  const r = new Reader(bytes);
  const pairs = [];
  r.at = 8;
  const tensors = r.u64();
  for (let n = r.u64(); n > 0; n--) {
    const start = r.at;
    const key = r.string();
    const type = r.u32();
    const at = r.at;
    r.skip(type);
    pairs.push({ key, head: bytes.subarray(start, at), value: bytes.subarray(at, r.at) });
  }
  const find = (key) => pairs.find((p) => p.key === key)?.value;
  const alignment = find('general.alignment')?.readUInt32LE() ?? 32;
  const texts = strings(find('tokenizer.ggml.tokens'));
  const descriptions = r.at;
  for (let i = 0; i < tensors; i++) {
    r.string();
    const axes = r.u32();
    r.at += 8 * axes + 4 + 8; /* shape, type, offset */
  }
  const padding = (n) => (alignment - (n % alignment)) % alignment;
  const head = Buffer.concat([bytes.subarray(0, 24), ...pairs.flatMap((p) => [p.head, changed(p.key, p.value, texts, changes)]),
    bytes.subarray(descriptions, r.at)]);
  writeFileSync(to, Buffer.concat([head, Buffer.alloc(padding(head.length)), bytes.subarray(r.at + padding(r.at))]));
}
