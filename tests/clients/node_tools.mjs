// Tools by OpenAI's client for Node and the AI SDK, of a random model: node_tools.mjs URL MODEL
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
let failed = 0;
function check(name, good, ...what) {
  console.log(`${good ? "ok" : "not ok"} - node: ${name}`, ...(good ? [] : what));
  failed += !good;
}

const parameters = { type: "object", properties: { a: { type: "integer", minimum: 0, maximum: 99 } }, required: ["a"], additionalProperties: false };
const messages = [{ role: "user", content: "which number?" }];
const client = new OpenAI({ baseURL: url + "/v1", apiKey: "none", maxRetries: 0 });
const asked = { model, messages, tools: [{ type: "function", function: { name: "pick", parameters } }], tool_choice: "required", parallel_tool_calls: false, seed: 3, max_completion_tokens: 200 };
const whole = (await client.chat.completions.create(asked)).choices[0];
const picked = JSON.parse(whole.message.tool_calls[0].function.arguments).a;
check("a call", whole.finish_reason === "tool_calls" && picked >= 0 && picked <= 99, whole);
const final = await client.chat.completions.stream(asked).finalMessage();
check("and its stream", final.tool_calls[0].function.arguments === whole.message.tool_calls[0].function.arguments, final);

const sdk = createOpenAICompatible({ name: "lockstep", baseURL: url + "/v1", apiKey: "none" });
const tools = { pick: tool({ description: "Picks a number.", inputSchema: jsonSchema(parameters) }) };
const options = { model: sdk.chatModel(model), messages, tools, toolChoice: "required", maxOutputTokens: 400, seed: 3, temperature: 1 };
const text = await generateText(options);
check("the AI SDK calls", text.toolCalls.length > 0 && text.toolCalls.every((c) => c.toolName === "pick" && c.input.a >= 0), text.toolCalls);
const streamed = await streamText(options).toolCalls;
check("and streams calls", JSON.stringify(streamed.map((c) => c.input)) === JSON.stringify(text.toolCalls.map((c) => c.input)), streamed);
process.exit(failed > 0 ? 1 : 0);
