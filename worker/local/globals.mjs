// Imported before Pyodide: gives it what it expects of a JavaScript host, inside workerd.
//
// Three phases. `boot`: Pyodide starts, and what it draws to seed itself is a constant (it ends up in a
// snapshot, so it is no secret). `import`: the Worker's modules run, and entropy and timers are refused;
// network and KV are refused by workerd itself, whose global scope this is. `request`: nothing is held.
import { env } from "cloudflare:workers";
import pyodideWasm from "pyodide.asm.wasm";
import pythonStdlib from "python_stdlib.zip";

export const INDEX_URL = "https://pyodide.local/"; // never resolved: `fetch` below answers it

let phase = "boot";

const native = {
  fetch: globalThis.fetch,
  setTimeout: globalThis.setTimeout,
  getRandomValues: crypto.getRandomValues,
  randomUUID: crypto.randomUUID,
};

function refuse(what) {
  throw new Error(`${what} is not available while the Worker is imported: call it in a handler`);
}

/** The Worker's modules run from here on. */
export function beginImport() {
  phase = "import";
  globalThis.fetch = () => refuse("fetch()");
}

/** Handlers run from here on: everything is native again. */
export function beginRequests() {
  phase = "request";
  globalThis.fetch = native.fetch;
  globalThis.setTimeout = native.setTimeout;
  delete crypto.getRandomValues;
  delete crypto.randomUUID;
}

crypto.getRandomValues = (view) => {
  if (phase === "import") refuse("entropy");
  return view.fill(43);
};
crypto.randomUUID = () => refuse("entropy");

// The event loop asks for a delay of zero, which needs no timer.
globalThis.setTimeout = (callback, delay) => {
  if (delay) refuse("a timer");
  queueMicrotask(callback);
  return 0;
};

// Pyodide would prefer it to setTimeout, but its messages do not keep to the request they belong to.
globalThis.MessageChannel = undefined;
globalThis.addEventListener = () => {}; // Emscripten registers a browser's listeners
globalThis.process = undefined; // else Pyodide takes workerd for Node
globalThis.location = undefined; // Pyodide resolves relative URLs against it

globalThis.fetch = async (input) => {
  const url = String(input?.url ?? input);
  if (url === `${INDEX_URL}python_stdlib.zip`) {
    return { ok: true, status: 200, arrayBuffer: async () => pythonStdlib };
  }
  if (url === `${INDEX_URL}pyodide.asm.wasm`) return { ok: true, status: 200 };
  return refuse(`fetch(${url})`);
};

// workerd compiles no code at run time, except through this binding.
const unsafeEval = env.UNSAFE_EVAL;
const NativeModule = WebAssembly.Module;
class Module {
  constructor(bytes) {
    return unsafeEval.newWasmModule(bytes);
  }
  static [Symbol.hasInstance](value) {
    return value instanceof NativeModule;
  }
}
for (const name of ["customSections", "imports", "exports"]) {
  Module[name] = NativeModule[name].bind(NativeModule);
}
WebAssembly.Module = Module;
WebAssembly.compile = async (bytes) => unsafeEval.newWasmModule(bytes);
WebAssembly.instantiate = async (source, imports) => {
  if (source instanceof NativeModule) return new WebAssembly.Instance(source, imports);
  const module = unsafeEval.newWasmModule(source);
  return { module, instance: new WebAssembly.Instance(module, imports) };
};
WebAssembly.instantiateStreaming = async (_response, imports) => ({
  module: pyodideWasm,
  instance: new WebAssembly.Instance(pyodideWasm, imports),
});
globalThis.eval = (source) => unsafeEval.eval(source);
