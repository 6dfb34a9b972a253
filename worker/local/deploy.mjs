// What a deploy does with the Worker: import it in the global scope, where the platform refuses what it
// refuses, and keep the interpreter's memory. Whoever fetches this gets that snapshot, or why not.
import { beginImport } from "./globals.mjs";
import { manifest, serialize, startPyodide } from "./runtime.mjs";
import { DISPATCH, PREPARE } from "./guards.mjs";

// While snapshots are made Pyodide remembers by which path each object of `js` was reached, and takes
// what was constructed from one for that path, too. Objects made here are nobody's path.
const targets = new WeakMap();
function withoutInheritedPath(target) {
  const proxy = new Proxy(target, {
    get(object, key) {
      const value = Reflect.get(object, key);
      const fixed = Reflect.getOwnPropertyDescriptor(object, key)?.configurable === false;
      return typeof value === "function" && !fixed ? withoutInheritedPath(value) : value;
    },
    apply: (method, self, args) => Reflect.apply(method, targets.get(self) ?? self, args),
    construct: (constructor, args) => Reflect.construct(constructor, args),
  });
  targets.set(proxy, target);
  return proxy;
}

async function deploy() {
  const pyodide = await startPyodide(null, withoutInheritedPath(globalThis));
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
