// Pyodide inside workerd, with the Worker's modules where Cloudflare's runtime mounts them and the
// runtime modules the official SDK imports.
import { INDEX_URL } from "./globals.mjs";
import * as cloudflareWorkers from "cloudflare:workers";
import * as cloudflareSockets from "cloudflare:sockets";
import createPyodideModule from "pyodide.asm.mjs";
import { loadPyodide } from "pyodide.mjs";
import pyodideLock from "pyodide-lock.json";
import bundle from "worker.bundle";
import manifestText from "worker.json";

export const manifest = JSON.parse(manifestText);

const METADATA = "/session/metadata";
const EROFS = 69;

// The settled half of what Python hands to `waitUntil`: a coroutine's proxy must outlive the handler.
async function settle(task) {
  const held = typeof task?.copy === "function" ? task.copy() : task;
  try {
    await held;
  } finally {
    if (held !== task) held.destroy();
  }
}

const patched = new WeakSet();

/** What the SDK imports as `_pyodide_entrypoint_helper`. */
const helper = {
  cloudflareWorkersModule: cloudflareWorkers,
  cloudflareSocketsModule: cloudflareSockets,
  doAnImport: (name) => import(name),
  patchWaitUntil(ctx) {
    if (patched.has(ctx)) return;
    patched.add(ctx);
    const waitUntil = ctx.waitUntil.bind(ctx);
    ctx.waitUntil = (task) => waitUntil(settle(task));
  },
  *patch_env_helper(_replacements) {
    throw new Error("patch_env is for tests inside Cloudflare's runtime");
  },
};

const compatFlags = Object.fromEntries(manifest.compatFlags.map((flag) => [flag, true]));
const registered = { helper, compatFlags };

/** Names the objects above in a snapshot; anything else of JavaScript's is refused, as on deploy. */
export function serialize(object) {
  for (const [name, value] of Object.entries(registered)) if (object === value) return { name };
  throw new Error(`Can't serialize top-level variable: ${describe(object)}`);
}

function describe(value) {
  let text;
  try {
    text = JSON.stringify(value) ?? String(value);
  } catch {
    text = Object.prototype.toString.call(value);
  }
  return `a JavaScript ${value?.constructor?.name ?? typeof value}: ${text.slice(0, 100)}`;
}

/** Start Pyodide: fresh, or as the snapshot remembers it. */
export async function startPyodide(snapshot, jsglobals = globalThis) {
  const pyodide = await loadPyodide({
    indexURL: INDEX_URL,
    lockFileContents: pyodideLock,
    createPyodideModule,
    jsglobals,
    stdout: (line) => console.log(line),
    stderr: (line) => console.warn(line),
    ...(snapshot
      ? { _loadSnapshot: snapshot, _snapshotDeserializer: ({ name }) => registered[name] }
      : { _makeSnapshot: true }),
  });
  mountWorker(pyodide.FS);
  if (!snapshot) {
    pyodide.registerJsModule("_pyodide_entrypoint_helper", helper);
    pyodide.registerJsModule("_cloudflare_compat_flags", compatFlags);
  }
  return pyodide;
}

/** The bundle's files below /session/metadata, read-only. */
function mountWorker(FS) {
  FS.mkdirTree(METADATA);
  FS.mount(FS.filesystems.MEMFS, {}, METADATA);
  for (const { name, offset, size } of manifest.files) {
    const path = `${METADATA}/${name}`;
    FS.mkdirTree(path.slice(0, path.lastIndexOf("/")));
    FS.writeFile(path, new Uint8Array(bundle, offset, size));
  }
  freeze(FS, FS.lookupPath(METADATA).node);
}

function freeze(FS, node) {
  const refuse = () => {
    throw new FS.ErrnoError(EROFS);
  };
  const changes = ["setattr", "mknod", "rename", "unlink", "rmdir", "symlink"];
  node.node_ops = {
    ...node.node_ops,
    ...Object.fromEntries(changes.filter((op) => op in node.node_ops).map((op) => [op, refuse])),
  };
  if (FS.isDir(node.mode)) for (const child of Object.values(node.contents)) freeze(FS, child);
  else node.stream_ops = { ...node.stream_ops, write: refuse };
  node.mode &= ~0o222;
}
