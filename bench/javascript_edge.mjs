// Runs a JavaScript Worker of this folder in the same Miniflare and workerd as the local edge, with a
// KV of its own.
//
//   node bench/javascript_edge.mjs WORKER.mjs    variables from the environment; prints "edge ready http://…"
import { readFileSync } from "node:fs";
import { Miniflare, NoOpLog, convertV4MiniflareOptions } from "miniflare";

const variables = ["API_KEY", "CACHE_KEY", "BEARER", "ORIGIN_URL"];
const miniflare = new Miniflare(
  convertV4MiniflareOptions({
    host: "127.0.0.1",
    port: 0,
    log: new NoOpLog(),
    compatibilityDate: "2026-11-01",
    kvNamespaces: ["KV"],
    bindings: Object.fromEntries(variables.map((name) => [name, process.env[name] ?? ""])),
    modules: [
      {
        type: "ESModule",
        path: "worker.mjs",
        contents: readFileSync(new URL(process.argv[2], import.meta.url), "utf8"),
      },
    ],
  }),
);
const stop = async () => {
  await miniflare.dispose();
  process.exit(0);
};
process.on("SIGINT", stop);
process.on("SIGTERM", stop);
console.log(`edge ready ${String(await miniflare.ready).replace(/\/$/, "")}`);
