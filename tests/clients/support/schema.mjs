/* schema.mjs - is a value valid under a JSON Schema? The keywords that the tests use, no others. */

const kinds = {
  object: (v) => typeof v === 'object' && v !== null && !Array.isArray(v),
  array: Array.isArray,
  string: (v) => typeof v === 'string',
  number: (v) => typeof v === 'number',
  integer: Number.isInteger,
  boolean: (v) => typeof v === 'boolean',
  null: (v) => v === null,
};

const known = new Set(['type', 'enum', 'const', 'properties', 'required', 'additionalProperties', 'items', 'prefixItems',
  'minItems', 'maxItems', 'minLength', 'maxLength', 'pattern', 'minimum', 'maximum', 'exclusiveMinimum',
  'exclusiveMaximum', 'anyOf', 'allOf', '$ref', '$defs', 'description', 'title']);

function same(a, b) {
  return JSON.stringify(a) === JSON.stringify(b);
}

function object(schema, v, root, at, wrong) {
  for (const key of schema.required ?? []) if (!Object.hasOwn(v, key)) wrong.push(`${at}.${key} is missing`);
  for (const [key, value] of Object.entries(v)) {
    if (schema.properties && Object.hasOwn(schema.properties, key)) {
      walk(schema.properties[key], value, root, `${at}.${key}`, wrong);
    } else if (schema.additionalProperties !== undefined) {
      walk(schema.additionalProperties, value, root, `${at}.${key}`, wrong);
    }
  }
}

function array(schema, v, root, at, wrong) {
  const first = schema.prefixItems ?? [];
  v.forEach((item, i) => {
    const its = i < first.length ? first[i] : schema.items;
    if (its !== undefined) walk(its, item, root, `${at}[${i}]`, wrong);
  });
  if (v.length < (schema.minItems ?? 0) || v.length > (schema.maxItems ?? Infinity)) wrong.push(`${at} has ${v.length} items`);
}

function string(schema, v, at, wrong) {
  const n = [...v].length;
  if (n < (schema.minLength ?? 0) || n > (schema.maxLength ?? Infinity)) wrong.push(`${at} has ${n} characters`);
  if (schema.pattern !== undefined && !new RegExp(schema.pattern, 'u').test(v)) wrong.push(`${at}: no ${schema.pattern}: ${v}`);
}

function number(schema, v, at, wrong) {
  const good = v >= (schema.minimum ?? -Infinity) && v <= (schema.maximum ?? Infinity) &&
    v > (schema.exclusiveMinimum ?? -Infinity) && v < (schema.exclusiveMaximum ?? Infinity);
  if (!good) wrong.push(`${at} is ${v}`);
}

function target(root, ref) {
  return ref.split('/').slice(1).reduce((node, part) => node[part], root);
}

function walk(schema, v, root, at, wrong) {
  if (schema === false) wrong.push(`${at} is not allowed`);
  if (typeof schema !== 'object') return;
  for (const key of Object.keys(schema)) if (!known.has(key)) throw new Error(`schema.mjs does not know ${key}`);
  if (schema.$ref) walk(target(root, schema.$ref), v, root, at, wrong);
  for (const part of schema.allOf ?? []) walk(part, v, root, at, wrong);
  if (schema.anyOf && !schema.anyOf.some((s) => invalid(s, v, root).length === 0)) wrong.push(`${at}: none of anyOf`);
  if (schema.type && ![schema.type].flat().some((t) => kinds[t](v))) wrong.push(`${at} is no ${schema.type}`);
  if (schema.enum && !schema.enum.some((e) => same(e, v))) wrong.push(`${at} is not in enum: ${JSON.stringify(v)}`);
  if ('const' in schema && !same(schema.const, v)) wrong.push(`${at} is not ${JSON.stringify(schema.const)}`);
  if (kinds.object(v)) object(schema, v, root, at, wrong);
  if (kinds.array(v)) array(schema, v, root, at, wrong);
  if (kinds.string(v)) string(schema, v, at, wrong);
  if (kinds.number(v)) number(schema, v, at, wrong);
}

/* What is wrong with `v`; empty: it is valid. */
export function invalid(schema, v, root = schema) {
  const wrong = [];
  walk(schema, v, root, '$', wrong);
  return wrong;
}
