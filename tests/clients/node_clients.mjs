// OpenAI's client for Node and the AI SDK against a server: node_clients.mjs URL MODEL
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
let failed = 0;
function check(name, good, ...what) {
  console.log(`${good ? "ok" : "not ok"} - node: ${name}`, ...(good ? [] : what));
  failed += !good;
}

const client = new OpenAI({ baseURL: url + "/v1", apiKey: "none", maxRetries: 0 });
const asked = { model, prompt: "in the", max_tokens: 20, temperature: 0.7, seed: 5 };
const whole = await client.completions.create(asked);
let pieces = "";
for await (const c of await client.completions.create({ ...asked, stream: true })) pieces += c.choices[0]?.text ?? "";
check("a stream is the whole", pieces === whole.choices[0].text && pieces.length > 0, pieces, whole);
const messages = [{ role: "user", content: "day 7?" }];
const chat = await client.chat.completions.create({ model, messages, max_completion_tokens: 20, seed: 5, logprobs: true, top_logprobs: 2 });
pieces = "";
let usage;
for await (const c of await client.chat.completions.create({ model, messages, max_completion_tokens: 20, seed: 5, stream: true, stream_options: { include_usage: true } })) {
  pieces += c.choices[0]?.delta.content ?? "";
  usage = c.usage ?? usage;
}
check("a conversation's, too", pieces === chat.choices[0].message.content, pieces, chat);
check("log-probabilities", chat.choices[0].logprobs.content.every((t) => t.logprob <= 0 && t.top_logprobs.length === 2), chat);
check("usage", usage?.completion_tokens === chat.usage.completion_tokens, usage);
const e = await client.embeddings.create({ model, input: ["in the", "it was"] });
check("embeddings", e.data.length === 2 && e.data[0].embedding.length === 84, e);
check("models", (await client.models.list()).data[0].id === model);
for (const [name, call, status] of [
  ["no such model", () => client.completions.create({ ...asked, model: "none" }), 404],
  ["a parameter that is not supported", () => client.completions.create({ ...asked, best_of: 3 }), 400],
])
  await call().then(
    () => check(name, false, "no error"),
    (err) => check(`${name}: an error of status ${status}`, err.status === status && err.error.message.length > 0, err),
  );
const stop = new AbortController();
const stream = await client.completions.create({ ...asked, max_tokens: 240, stream: true }, { signal: stop.signal });
for await (const _ of stream) { stop.abort(); break; }

const sdk = createOpenAICompatible({ name: "lockstep", baseURL: url + "/v1", apiKey: "none" });
const text = await generateText({ model: sdk.chatModel(model), messages, maxOutputTokens: 20, seed: 5, temperature: 1 });
check("the AI SDK generates the same", text.text === chat.choices[0].message.content, text.text, chat.choices[0].message.content);
pieces = "";
for await (const t of streamText({ model: sdk.chatModel(model), messages, maxOutputTokens: 20, seed: 5, temperature: 1 }).textStream) pieces += t;
check("and streams it", pieces === text.text, pieces);
process.exit(failed > 0 ? 1 : 0);
