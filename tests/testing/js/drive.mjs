// Drives a server with LM Studio's own JavaScript SDK and prints what it saw as one JSON object.
// Usage: node drive.mjs ws://127.0.0.1:PORT MODEL_KEY
import { LMStudioClient } from "@lmstudio/sdk";

const [, , baseUrl, modelKey] = process.argv;
const quiet = () => {};
const client = new LMStudioClient({
  baseUrl,
  logger: { debug: quiet, info: quiet, warn: console.error, error: console.error },
});
const identifiers = async () => (await client.llm.listLoaded()).map((model) => model.identifier);
const seen = {};

seen.listed = (await client.system.listDownloadedModels()).map((model) => model.modelKey);

const progress = [];
const model = await client.llm.load(modelKey, {
  identifier: "from-javascript",
  ttl: 60,
  config: { contextLength: 1024 },
  onProgress: (fraction) => progress.push(fraction),
});
seen.progress = progress;
seen.loaded = await identifiers();
seen.contextLength = await model.getContextLength();

seen.tokens = (await model.tokenize("one two three")).length;
seen.counted = await model.countTokens("one two three");

const prefill = [];
const settings = { temperature: 0, maxTokens: 12, contextOverflowPolicy: "stopAtLimit" };
const raw = model.complete("The river runs past the old mill. The river", {
  ...settings,
  onPromptProcessingProgress: (fraction) => prefill.push(fraction),
});
const fragments = [];
for await (const fragment of raw) fragments.push(fragment.content);
const whole = await raw.result();
seen.fragments = fragments;
seen.content = whole.content;
seen.stats = whole.stats;
seen.prefill = prefill;

const chat = await model.respond([{ role: "user", content: "Count to three." }], settings);
seen.chat = { content: chat.content, promptTokens: chat.stats.promptTokensCount };

const long = model.respond("Count to one thousand in words.", { ...settings, maxTokens: 512 });
for await (const _ of long) {
  await long.cancel();
  break;
}
seen.cancelled = (await long.result()).stats.stopReason;

await model.unload();
seen.left = await identifiers();

try {
  await client.llm.load("no-such-model", { verbose: false });
  seen.unknown = "loaded";
} catch (error) {
  seen.unknown = String(error.message ?? error);
}

console.log(JSON.stringify(seen));
process.exit(0);
