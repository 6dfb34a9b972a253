// The serving half: the interpreter as the deploy left it, behind workerd's handlers. No request logic.
import { beginRequests } from "./globals.mjs";
import { WorkerEntrypoint, env as bindings } from "cloudflare:workers";
import { startPyodide } from "./runtime.mjs";
import snapshot from "worker.snapshot";

const pyodide = await startPyodide(snapshot);
pyodide.runPython("import sys; sys.path.remove('')"); // Pyodide's own start puts it there
const python = Object.fromEntries(
  ["entrypoint", "fetch", "scheduled", "begin_requests"].map((name) => [
    name,
    pyodide.globals.get(name),
  ]),
);
const { UNSAFE_EVAL, ...env } = bindings; // what the Worker sees is what it is configured with

let serving = false;
function beginServing() {
  serving = true;
  beginRequests();
  python.begin_requests(); // entropy exists from here on, so random is seeded now
}

async function call(handler, ctx, argument) {
  if (!serving) beginServing();
  const coroutine = handler(python.entrypoint, ctx, env, argument);
  try {
    return await coroutine;
  } finally {
    coroutine.destroy();
  }
}

export default class extends WorkerEntrypoint {
  async fetch(request) {
    try {
      return await call(python.fetch, this.ctx, request);
    } catch (error) {
      console.error(error?.message ?? String(error));
      return new Response("error code: 1101\n", {
        status: 500,
        headers: { "content-type": "text/plain" },
      });
    }
  }

  async scheduled(controller) {
    await call(python.scheduled, this.ctx, controller);
  }
}
