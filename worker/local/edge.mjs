// The local edge: runs the Worker of wrangler.toml in workerd, with a real KV namespace, on this machine.
//
//   node worker/local/edge.mjs [--port 8787] [--host 127.0.0.1] [--config wrangler.toml]
//                              [--var NAME=VALUE | --var NAME …] [--persist .wrangler/state]
//   node worker/local/edge.mjs --modules      prints what would be uploaded, as JSON {name: sha256}
//
// Prints "edge ready http://…" once, when the Worker has been imported and its port answers. Reloads when
// the Worker, shared/ or the configuration changes; a change that does not import is reported, and what
// ran before goes on. Not here: anything about requests.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  watch,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { collectModules } from "./bundle.mjs";

process.env.WRANGLER_SEND_METRICS ??= "false";
process.env.WRANGLER_WRITE_LOGS ??= "false";
const { Miniflare, NoOpLog, convertV4MiniflareOptions } = await import("miniflare");
const wrangler = await import("wrangler");

const DEPLOY_TIMEOUT_MS = 75_000; // a second where nobody else wants the processor
const DEBOUNCE_MS = 100;
const SNAPSHOTS_KEPT = 4; // about 30 MB each
// The rest of the runtime's Python behaviour is on since this date, and the local edge knows only that.
const OLDEST_COMPATIBILITY_DATE = "2026-05-26";
const PYTHON_FLAGS = [
  "python_process_pth_files",
  "python_request_headers_preserve_commas",
  "python_workers",
  "python_workflows_implicit_dependencies",
];

// As the Worker's own LOOPBACK_HOSTS, which it tells by the Host header: anybody can send that.
const LOOPBACK = /^(localhost|::1|127(\.\d{1,3}){3})$/;

class Refusal extends Error {}

const options = readOptions();
const packages = createRequire(import.meta.url);
const local = (name) => readFileSync(new URL(name, import.meta.url), "utf8");
const readPackage = (name) => readFileSync(packages.resolve(`${name}/package.json`), "utf8");
const pyodideFile = (name) => readFileSync(packages.resolve(`pyodide/${name}`));
const RUNTIME_MODULES = [
  ...["globals.mjs", "runtime.mjs", "guards.mjs"].map((name) => ({
    type: "ESModule",
    path: name,
    contents: local(name),
  })),
  ...["pyodide.asm.mjs", "pyodide.mjs"].map((name) => ({
    type: "ESModule",
    path: name,
    contents: pyodideFile(name).toString(),
  })),
  { type: "CompiledWasm", path: "pyodide.asm.wasm", contents: pyodideFile("pyodide.asm.wasm") },
  { type: "Data", path: "python_stdlib.zip", contents: pyodideFile("python_stdlib.zip") },
  { type: "Text", path: "pyodide-lock.json", contents: pyodideFile("pyodide-lock.json").toString() },
];

/** Names this runtime: a snapshot serves only the one it was made by. */
const RUNTIME = [
  ...["miniflare", "pyodide"].map((name) => JSON.parse(readPackage(name)).version),
  ...["globals.mjs", "runtime.mjs", "guards.mjs", "deploy.mjs"].map(local),
];

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        port: { type: "string", default: "8787" },
        host: { type: "string", default: "127.0.0.1" },
        config: { type: "string", default: "wrangler.toml" },
        persist: { type: "string" },
        var: { type: "string", multiple: true, default: [] },
        modules: { type: "boolean", default: false },
      },
    });
    const port = Number(values.port);
    if (!Number.isInteger(port) || port < 0 || port > 65535) {
      throw new Error(`--port ${values.port} is not a port`);
    }
    const vars = values.var.map((text) => {
      const at = text.indexOf("=");
      if (at < 0 && text in process.env) return [text, process.env[text]]; // unseen in a process list
      if (at < 1) throw new Error(`--var ${text} is neither NAME=VALUE nor a variable that is set`);
      return [text.slice(0, at), text.slice(at + 1)];
    });
    const config = resolve(values.config);
    if (!existsSync(config)) throw new Error(`--config ${values.config} does not exist`);
    const persist = resolve(values.persist ?? join(dirname(config), ".wrangler/state"));
    return { ...values, port, config, persist, vars: Object.fromEntries(vars) };
  } catch (error) {
    fail(error.message);
  }
}

function fail(message) {
  console.error(`edge: ${message}`);
  process.exit(1);
}

function readConfig() {
  const config = wrangler.unstable_readConfig({ config: options.config }, { hideWarnings: true });
  if (config.compatibility_date < OLDEST_COMPATIBILITY_DATE) {
    throw new Refusal(
      `compatibility_date ${config.compatibility_date} is before ${OLDEST_COMPATIBILITY_DATE}`,
    );
  }
  return config;
}

/** Run the [build] command; its output matters only when it fails. */
async function build(config) {
  if (!config.build.command) return;
  const child = spawn(config.build.command, {
    shell: true,
    cwd: config.build.cwd ?? dirname(config.configPath),
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => output.push(chunk));
  }
  const code = await new Promise((done) => child.on("close", done));
  if (code !== 0) {
    throw new Refusal(
      `[build] "${config.build.command}" failed with ${code}\n${Buffer.concat(output)}`.trimEnd(),
    );
  }
}

/** The Worker's files as modules that runtime.mjs mounts. */
function pack(config, modules) {
  let offset = 0;
  const files = modules.map(({ name, contents }) => {
    const file = { name, offset, size: contents.length };
    offset += contents.length;
    return file;
  });
  const main = resolve(dirname(config.configPath), config.main);
  const manifest = {
    main: main.slice(dirname(main).length + 1, -".py".length),
    files,
    compatFlags: [...new Set([...PYTHON_FLAGS, ...config.compatibility_flags])],
  };
  return [
    { type: "Text", path: "worker.json", contents: JSON.stringify(manifest) },
    { type: "Data", path: "worker.bundle", contents: Buffer.concat(modules.map((m) => m.contents)) },
    // The SDK's own JavaScript, which its Python imports by this name.
    ...modules
      .filter(({ name }) => /^python_modules\/workers\/.*\.m?js$/.test(name))
      .map(({ name, contents }) => ({ type: "ESModule", path: name, contents: contents.toString() })),
  ];
}

const mainModule = (name) => ({ type: "ESModule", path: name, contents: local(name) });

/** What every Worker of ours is to Miniflare, without bindings: a deploy has none. */
function workerOptions(config, modules) {
  return {
    name: config.name,
    rootPath: dirname(config.configPath),
    modules,
    compatibilityDate: config.compatibility_date,
    compatibilityFlags: config.compatibility_flags.filter((flag) => !flag.startsWith("python")),
    unsafeEvalBinding: "UNSAFE_EVAL",
  };
}

/** Bindings, variables and secrets: of the configuration, .dev.vars and the command line. */
function bindingOptions(config) {
  const { workerOptions: fromConfig } = wrangler.unstable_getMiniflareWorkerOptions(config);
  delete fromConfig.modulesRules; // the modules are listed
  return { ...fromConfig, bindings: { ...fromConfig.bindings, ...options.vars } };
}

const sharedOptions = {
  log: new NoOpLog(),
  cf: false, // else Miniflare downloads one
  logRequests: false,
  handleStructuredLogs({ level, message }) {
    const stream = level === "error" || level === "warn" ? process.stderr : process.stdout;
    stream.write(`${message.trimEnd()}\n`);
  },
};

/** Import the Worker as a deploy would: its memory snapshot, or a Refusal with Python's error. */
async function deploy(config, modules) {
  const worker = new Miniflare(
    convertV4MiniflareOptions({
      ...sharedOptions,
      ...workerOptions(config, [mainModule("deploy.mjs"), ...modules, ...RUNTIME_MODULES]),
      port: 0,
      host: "127.0.0.1",
    }),
  );
  let timer;
  const tooLong = new Promise((_, reject) => {
    timer = setTimeout(
      () => reject(new Refusal(`the Worker was still importing after ${DEPLOY_TIMEOUT_MS / 1000} s`)),
      DEPLOY_TIMEOUT_MS,
    );
  });
  try {
    const response = await Promise.race([worker.dispatchFetch("http://deploy.local/"), tooLong]);
    if (response.status !== 200) {
      throw new Refusal(`the Worker cannot be imported\n${await response.text()}`.trimEnd());
    }
    return Buffer.from(await response.arrayBuffer());
  } finally {
    clearTimeout(timer);
    await worker.dispose();
  }
}

/** A snapshot made before of the same code by the same runtime, else a new one. */
async function remembered(config, code, make) {
  const folder = join(dirname(config.configPath), ".wrangler/snapshots");
  const file = join(folder, code);
  try {
    const snapshot = readFileSync(file);
    utimesSync(file, new Date(), new Date());
    return snapshot;
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  const snapshot = await make();
  mkdirSync(folder, { recursive: true });
  const unfinished = join(folder, `.${code}.${process.pid}`); // another edge may be at it, too
  writeFileSync(unfinished, snapshot);
  renameSync(unfinished, file);
  const byAge = readdirSync(folder)
    .filter((name) => !name.startsWith("."))
    .map((name) => join(folder, name))
    .map((path) => ({ path, time: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
    .sort((a, b) => b.time - a.time);
  for (const { path } of byAge.slice(SNAPSHOTS_KEPT)) rmSync(path, { force: true });
  return snapshot;
}

const digest = (data) => createHash("sha256").update(data).digest("hex");

let edge; // Miniflare, once something could be imported
let running; // digest of what it runs

async function load() {
  const config = readConfig();
  await build(config);
  const collected = collectModules(config);
  const modules = pack(config, collected);
  const bindings = bindingOptions(config);
  if (bindings.bindings.ENCORE_MODE === "development" && !LOOPBACK.test(options.host)) {
    throw new Refusal(
      `--host ${options.host} with ENCORE_MODE=development lets others use the development key; ` +
        "leave it at 127.0.0.1, or set ENCORE_MODE=production",
    );
  }
  const code = digest(
    JSON.stringify([RUNTIME, workerOptions(config, modules.map((m) => [m.path, digest(m.contents)]))]),
  );
  const identity = digest(JSON.stringify([code, bindings]));
  if (identity === running) return false;
  const snapshot = await remembered(config, code, () => deploy(config, modules));
  const serving = convertV4MiniflareOptions({
    ...sharedOptions,
    ...bindings,
    ...workerOptions(config, [
      mainModule("shim.mjs"),
      { type: "Data", path: "worker.snapshot", contents: snapshot },
      ...modules,
      ...RUNTIME_MODULES,
    ]),
    port: options.port,
    host: options.host,
    resourcePersistencePath: join(options.persist, "v3"), // as `wrangler dev` does
    unsafeTriggerHandlers: true, // GET /cdn-cgi/local/scheduled
  });
  if (edge) await edge.setOptions(serving);
  else edge = new Miniflare(serving);
  const url = await edge.ready;
  options.port = Number(url.port); // a reload stays where it is
  running = identity;
  return true;
}

/** A free port where none was asked for, and a clear refusal where it is taken. */
async function reservePort() {
  const server = createServer();
  await new Promise((done, reject) => {
    server.once("error", reject);
    server.listen({ host: options.host, port: options.port, exclusive: true }, done);
  }).catch((error) => {
    const reason = error.code === "EADDRINUSE" ? "is taken" : `cannot be used (${error.code})`;
    fail(`port ${options.port} on ${options.host} ${reason}; choose another one with --port`);
  });
  options.port = server.address().port;
  await new Promise((done) => server.close(done));
}

function report(error) {
  console.error(`edge: ${error instanceof Refusal ? error.message : (error?.stack ?? error)}`);
}

let pending;
let loading = Promise.resolve();
function reloadSoon() {
  clearTimeout(pending);
  pending = setTimeout(() => {
    loading = loading.then(async () => {
      try {
        if (await load()) console.log("edge reloaded");
      } catch (error) {
        report(error);
        console.error("edge: still running what ran before; waiting for the next change");
      }
    });
  }, DEBOUNCE_MS);
}

function watchSources(config) {
  const root = dirname(config.configPath);
  const folders = [config.build.watch_dir ?? []].flat(); // relative to where we are, by now
  for (const folder of folders.filter(existsSync)) {
    watch(folder, { recursive: true }, (_event, name) => {
      if (name?.endsWith(".py")) reloadSoon();
    });
  }
  const settings = [config.configPath, join(root, ".dev.vars")];
  watch(root, (_event, name) => {
    if (settings.includes(join(root, name ?? ""))) reloadSoon();
  });
}

let stopping = false;
async function stop() {
  if (stopping) return;
  stopping = true;
  await edge?.dispose().catch(() => {});
  process.exit(0);
}

if (options.modules) {
  try {
    const config = readConfig();
    await build(config);
    const modules = collectModules(config).map(({ name, contents }) => [name, digest(contents)]);
    console.log(JSON.stringify(Object.fromEntries(modules), null, 2));
    process.exit(0);
  } catch (error) {
    report(error);
    process.exit(1);
  }
}

await reservePort();
try {
  await load();
} catch (error) {
  report(error);
  await edge?.dispose().catch(() => {});
  process.exit(1);
}
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.removeAllListeners(signal); // Miniflare's own ends the process with a failure
  process.on(signal, stop);
}
watchSources(readConfig());
console.log(`edge ready http://${options.host}:${options.port}`);
