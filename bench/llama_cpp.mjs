// Prefill of 512 tokens and decode of 1 and 8 sequences with node-llama-cpp, in the form of bench/engine.sh. Run from a
// directory that has node_modules/node-llama-cpp. Decode: median over runs of 32 steps after a warm-up.
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { pathToFileURL } from "node:url";
const require = createRequire(process.cwd() + "/");
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(require.resolve("node-llama-cpp")));

const threads = cpus().length;
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: process.argv[2], gpuLayers: 0 });
const ids = (n, salt) => Array.from({ length: n }, (_, i) => 300 + ((i * 7919 + salt * 31) % 20000));
const median = (v) => v.sort((a, b) => a - b)[Math.floor(v.length / 2)];
const seconds = async (work) => {
  const began = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - began) / 1e9;
};

async function decode(sequence, salt, steps) {
  let done = 0;
  for await (const _ of sequence.evaluate(ids(1, salt), { temperature: 0 })) {
    if (++done >= steps) break;
  }
  await sequence.clearHistory();
}

{
  const context = await model.createContext({ contextSize: 1024, batchSize: 512, threads });
  const sequence = context.getSequence();
  const times = [];
  for (let r = 0; r < 4; r++) {
    times.push(await seconds(() => sequence.evaluateWithoutGeneratingNewTokens(ids(512, r))));
    await sequence.clearHistory();
  }
  console.log(`llama.cpp prefill-1 ${(512 / median(times.slice(1))).toFixed(2)}`);
  await context.dispose();
}
for (const batch of [1, 8]) {
  const context = await model.createContext({ contextSize: 128, sequences: batch, batchSize: 512, threads });
  const sequences = Array.from({ length: batch }, () => context.getSequence());
  const steps = 32;
  const times = [];
  for (let r = 0; r < 4; r++) {
    times.push(await seconds(() => Promise.all(sequences.map((s, i) => decode(s, r * 8 + i, steps)))));
  }
  console.log(`llama.cpp decode-${batch} ${((batch * steps) / median(times.slice(1))).toFixed(2)}`);
  await context.dispose();
}
await llama.dispose();
process.exit(0);
