// llama.cpp's forward pass through node-llama-cpp, test by test as in bench/engine.sh. Run from a directory that has
// node_modules/node-llama-cpp.
// usage: node llama_cpp.mjs MODEL [RUNS] [TEST..]     TEST: prefill, decode-N (N sequences), decode-N-C (C tokens each)
//
// What is timed is llama_decode with llama_synchronize and nothing else: the addon's context is driven directly, because
// the public interface adds sampling and JavaScript to each token and may split a step of many sequences. The ids of the
// tokens are made up, as in `pare bench`. Each figure is the median of RUNS runs after one that warms up; a run of decode
// is 32 steps. node-llama-cpp's own choices stay: f16 cache, flash attention where llama.cpp takes it.
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { pathToFileURL } from "node:url";
const require = createRequire(process.cwd() + "/");
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(require.resolve("node-llama-cpp")));

const [path, runsText = "3", ...asked] = process.argv.slice(2);
const runs = Number(runsText);
const tests = asked.length ? asked : ["prefill", "decode-1", "decode-8", "decode-8-512", "decode-32"];
const PROMPT = 512;
const STEPS = 32;

const threads = availableParallelism();
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
const vocabulary = model.fileInfo.metadata.tokenizer?.ggml?.tokens?.length ?? 32000;
const ids = (n, salt) => Uint32Array.from({ length: n }, (_, i) => (i * 7919 + salt * 31 + 13) % vocabulary);

function median(values) {
  const v = [...values].sort((a, b) => a - b);
  return v.length % 2 ? v[(v.length - 1) / 2] : (v[v.length / 2 - 1] + v[v.length / 2]) / 2;
}

async function open(sequences, contextSize) {
  const context = await model.createContext({ contextSize, sequences, batchSize: PROMPT, threads });
  const raw = context._ctx;
  for (const name of ["initBatch", "addToBatch", "decodeBatch", "removeTokenCellsFromSequence", "setThreads"]) {
    if (typeof raw?.[name] !== "function") {
      throw new Error(`this version of node-llama-cpp has no _ctx.${name}; bench/engine.sh names one that has`);
    }
  }
  raw.setThreads(threads);
  return [context, raw];
}

// One llama_decode of [sequence, position, ids] parts; logits for the last token of each.
async function step(raw, parts) {
  raw.initBatch(parts.reduce((n, [, , tokens]) => n + tokens.length, 0));
  for (const [sequence, position, tokens] of parts) {
    raw.addToBatch(sequence, position, tokens, Uint32Array.of(tokens.length - 1));
  }
  await raw.decodeBatch();
}

async function measure(once) {
  const times = [];
  for (let r = 0; r <= runs; r++) {
    const seconds = await once(r);
    if (r > 0) times.push(seconds);
  }
  return median(times);
}

async function timed(work) {
  const began = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - began) / 1e9;
}

async function prefill() {
  const [context, raw] = await open(1, PROMPT + 64);
  const seconds = await measure(async (r) => {
    const took = await timed(() => step(raw, [[0, 0, ids(PROMPT, r)]]));
    raw.removeTokenCellsFromSequence(0, 0, PROMPT);
    return took;
  });
  await context.dispose();
  return PROMPT / seconds;
}

async function decode(batch, before) {
  const [context, raw] = await open(batch, before + STEPS + 64);
  for (let s = 0; s < batch; s++) {
    for (let at = 0; at < before; at += PROMPT) {
      await step(raw, [[s, at, ids(before, s).slice(at, at + PROMPT)]]);
    }
  }
  const seconds = await measure(async (r) => {
    const tokens = Array.from({ length: batch }, (_, s) => ids(STEPS, 100 + r * batch + s));
    const took = await timed(async () => {
      for (let i = 0; i < STEPS; i++) {
        await step(raw, tokens.map((t, s) => [s, before + i, t.subarray(i, i + 1)]));
      }
    });
    for (let s = 0; s < batch; s++) {
      raw.removeTokenCellsFromSequence(s, before, before + STEPS);
    }
    return took;
  });
  await context.dispose();
  return (batch * STEPS) / seconds;
}

for (const test of tests) {
  const [kind, batch = "1", before = "0"] = test.split("-");
  const rate = kind === "prefill" ? await prefill() : await decode(Number(batch), Number(before));
  console.log(`llama.cpp ${test} ${rate.toFixed(2)}`);
}
await llama.dispose();
process.exit(0);
