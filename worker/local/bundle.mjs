// The modules that `wrangler deploy` would upload, found the way wrangler finds them (a test compares
// the two by hash).
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";

const UPLOADED = /\.(py|txt|html|sql|bin|wasm)$/; // wrangler's default rules, and Python's

/** @returns {{name: string, contents: Buffer}[]} sorted by name; the entry module is among them. */
export function collectModules(config) {
  const root = dirname(config.configPath);
  const main = resolve(root, config.main);
  if (!main.endsWith(".py")) throw new Error(`main = "${config.main}" is not a Python Worker`);
  const own = filesBelow(config.base_dir ?? dirname(main)).filter((file) => UPLOADED.test(file.name));
  const excluded = config.python_modules.exclude.map(globToRegExp);
  const vendored = filesBelow(join(root, "python_modules"))
    .filter((file) => !excluded.some((pattern) => pattern.test(file.name)))
    .map((file) => ({ ...file, name: `python_modules/${file.name}` }));
  return [...own, ...vendored]
    .map(({ name, path }) => ({ name, contents: readFileSync(path) }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function filesBelow(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => ({ path, name: relative(folder, path).split(sep).join("/") }));
}

/** `**`, `*` and `?`, as `python_modules.exclude` uses them. */
function globToRegExp(glob) {
  const parts = { "**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]" };
  const escaped = glob.replace(/\*\*\/|\*\*|[*?]|[.+^${}()|[\]\\]/g, (part) => parts[part] ?? `\\${part}`);
  return new RegExp(`^${escaped}$`);
}
