// What a deploy does with the Worker: import it in the global scope, where the platform refuses what it
// refuses, and keep the interpreter's memory. Whoever fetches this gets that snapshot, or why not.
import { beginImport } from "./globals.mjs";
import { manifest, serialize, startPyodide } from "./runtime.mjs";
import { DISPATCH, PREPARE } from "./guards.mjs";

async function deploy() {
  const pyodide = await startPyodide();
  pyodide.runPython(PREPARE, { filename: "<encore local edge>" });
  beginImport();
  pyodide.runPython(
    `import importlib; entrypoint = importlib.import_module("${manifest.main}").Default`,
  );
  pyodide.runPython(DISPATCH, { filename: "<encore local edge>" });
  return pyodide.makeMemorySnapshot({ serializer: serialize });
}

let snapshot;
let failure;
try {
  snapshot = await deploy();
} catch (error) {
  failure = error?.message ?? String(error);
}

export default {
  async fetch() {
    return snapshot ? new Response(snapshot) : new Response(failure, { status: 500 });
  },
};
