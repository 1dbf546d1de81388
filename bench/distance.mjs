// The two halves of bench/distance.sh that are not pare's: llama.cpp's logits, and how far logits lie from the exact ones.
// The first runs in a directory that has node_modules/node-llama-cpp.
//
// usage: node distance.mjs logits MODEL IDS.json f16|f32 OUT.f32    the logits of every position, as `pare logits` has them
//        node distance.mjs compare IDS.json EXACT.f32 OTHER.f32     "rms | max | same best token | divergence"
//
// f16 is llama.cpp's own choice: f16 keys and values, flash attention where it takes it. f32 has flash attention off,
// because that rounds f32 keys and values to f16. The addon is driven directly: its public interface refuses models that
// have no vocabulary, as those of the conformance set.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { pathToFileURL } from "node:url";

const BATCH = 512; // tokens of a step, llama.cpp's n_batch

function readLists(path) {
  const ids = JSON.parse(readFileSync(path, "utf8"));
  return Array.isArray(ids[0]) ? ids : [ids];
}

async function openModel(path) {
  const require = createRequire(process.cwd() + "/");
  const { getLlama, LlamaLogLevel } = await import(pathToFileURL(require.resolve("node-llama-cpp")));
  const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
  const addon = llama._bindings;
  for (const name of ["AddonModel", "AddonContext", "AddonSampler", "getGgmlType"]) {
    if (typeof addon?.[name] !== "function") {
      throw new Error(`this version of node-llama-cpp has no _bindings.${name}; bench/distance.sh names one that has`);
    }
  }
  const model = new addon.AddonModel(path, { addonExports: addon, gpuLayers: 0 });
  if (!(await model.init())) {
    throw new Error(`llama.cpp does not load ${path}`);
  }
  return [addon, model];
}

async function openContext(addon, model, length, exact) {
  const type = exact ? addon.getGgmlType("F32") : undefined;
  const options = { contextSize: length, batchSize: BATCH, sequences: 1, threads: availableParallelism() };
  const context = new addon.AddonContext(model, {
    ...options,
    ...(exact ? { kvCacheKeyType: type, kvCacheValueType: type, flashAttention: false } : { flashAttention: "auto" }),
  });
  if (!(await context.init())) {
    throw new Error("llama.cpp does not make a context");
  }
  return context;
}

// Rows of one list from an empty cache. What is sampled is not used: the addon hands out logits beside it, [id, logit, ..]
// sorted, and with a sampler that only takes the best they are as they were computed.
async function listLogits(context, sampler, ids) {
  const rows = [];
  for (let at = 0; at < ids.length; at += BATCH) {
    const part = Uint32Array.from(ids.slice(at, at + BATCH));
    context.initBatch(part.length);
    const outputs = context.addToBatch(0, at, part, Uint32Array.from(part.keys()));
    await context.decodeBatch();
    for (const output of outputs) {
      const [, , , pairs] = await context.sampleToken(output, sampler, false, false, true);
      const row = new Float32Array(pairs.length / 2).fill(NaN);
      for (let i = 0; i < pairs.length; i += 2) {
        row[pairs[i]] = pairs[i + 1];
      }
      rows.push(Buffer.from(row.buffer));
    }
  }
  context.removeTokenCellsFromSequence(0, 0, ids.length);
  return rows;
}

async function logits(path, idsPath, type, out) {
  const lists = readLists(idsPath);
  const [addon, model] = await openModel(path);
  const context = await openContext(addon, model, Math.max(...lists.map((l) => l.length)), type === "f32");
  const sampler = new addon.AddonSampler(model);
  sampler.applyConfig({ temperature: 0 });
  const rows = [];
  for (const ids of lists) {
    rows.push(...(await listLogits(context, sampler, ids)));
  }
  writeFileSync(out, Buffer.concat(rows));
  process.exit(0); // the addon's threads would keep the process
}

function readRows(path, n) {
  const bytes = readFileSync(path);
  if (bytes.length === 0 || bytes.length % (4 * n) !== 0) {
    throw new Error(`${path} does not hold the logits of ${n} tokens`);
  }
  const width = bytes.length / (4 * n);
  const values = Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
  return Array.from({ length: n }, (_, i) => values.subarray(i * width, (i + 1) * width));
}

function best(row) {
  return row.reduce((at, v, i) => (v > row[at] ? i : at), 0);
}

function logProbabilities(row) {
  const most = row[best(row)];
  const sum = row.reduce((s, v) => s + Math.exp(v - most), 0);
  return Float64Array.from(row, (v) => v - most - Math.log(sum));
}

// Differences of log-probabilities over all positions and tokens, in units of how much the exact ones of a position
// deviate from their mean; Kullback-Leibler divergence from the exact distribution in nats, the mean of the positions.
function compare(idsPath, exactPath, otherPath) {
  const n = readLists(idsPath).reduce((s, l) => s + l.length, 0);
  const exact = readRows(exactPath, n);
  const other = readRows(otherPath, n);
  let deviation = 0, square = 0, most = 0, same = 0, divergence = 0;
  for (let p = 0; p < n; p++) {
    const a = logProbabilities(exact[p]);
    const b = logProbabilities(other[p]);
    if (a.length !== b.length) {
      throw new Error(`${exactPath} and ${otherPath} have vocabularies of ${a.length} and ${b.length} tokens`);
    }
    const mean = a.reduce((s, v) => s + v, 0) / a.length;
    for (let i = 0; i < a.length; i++) {
      const d = b[i] - a[i];
      if (!Number.isFinite(d)) {
        throw new Error(`position ${p} has no number for token ${i}`);
      }
      deviation += (a[i] - mean) ** 2;
      square += d * d;
      most = Math.max(most, Math.abs(d));
      divergence -= Math.exp(a[i]) * d;
    }
    same += best(exact[p]) === best(other[p]) ? 1 : 0;
  }
  const size = Math.sqrt(deviation / (n * exact[0].length));
  const rms = Math.sqrt(square / (n * exact[0].length)) / size;
  console.log(`${rms.toExponential(1)} | ${(most / size).toExponential(1)} | ${same} of ${n} | ` +
    Math.max(0, divergence / n).toExponential(1));
}

const [command, ...rest] = process.argv.slice(2);
if (command === "logits" && rest.length === 4) {
  await logits(...rest);
} else if (command === "compare" && rest.length === 3) {
  compare(...rest);
} else {
  console.error("usage: see the beginning of bench/distance.mjs");
  process.exit(2);
}
