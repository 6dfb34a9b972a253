// The official JavaScript client: ask twice plain and once streamed; print what it saw as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "sk-encore-dev", maxRetries: 0 });
const request = { model: "encore-demo", messages: [{ role: "user", content: process.argv[3] }] };
const seen = [];
for (let attempt = 0; attempt < 100; attempt += 1) {
  const { data, response } = await client.chat.completions.create(request).withResponse();
  seen.push({ status: response.headers.get("cache-status"), text: data.choices[0].message.content });
  if (attempt > 0 && seen.at(-1).status.startsWith("encore-edge; hit")) break;
  await new Promise((resolve) => setTimeout(resolve, 50));
}
const { data: stream, response } = await client.chat.completions
  .create({ ...request, stream: true, stream_options: { include_usage: true } })
  .withResponse();
let text = "";
let usage = null;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
seen.push({ status: response.headers.get("cache-status"), text, usage });
console.log(JSON.stringify(seen));
