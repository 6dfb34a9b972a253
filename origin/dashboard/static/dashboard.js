// The page: listens to the live stream and shows what it says; asks for purges. Whatever comes from
// the server is put in as text, never as markup.

import { AmountChart, Histogram, LatencyChart, ShareChart, html, svg } from "./charts.js";

const root = document.documentElement.dataset;
const operator = root.operator === "yes";
const csrf = document.querySelector('meta[name="encore-csrf"]').content;
const $ = (id) => document.getElementById(id);
const show = (id, text) => { $(id).textContent = text; };
let view = root.view;
let evictedBefore = null;

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (number) => (number < 100000 ? whole.format(Math.round(number)) : compact.format(number));
const few = (number) => (number > 0 && number < 0.05 ? "< 0.1" : number < 10 && number % 1 ? number.toFixed(1) : count(number));
const percent = (share) => (share === null || share === undefined ? "–" : `${(share * 100).toFixed(share > 0.9995 || share === 0 ? 0 : 1)} %`);
const usd = (amount) => {
  const digits = amount >= 1000 ? 0 : amount >= 1 || amount === 0 ? 2 : 4;
  return `$${amount.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
};
const duration = (ms) => (ms < 1000 ? `${ms} ms` : `${ms / 1000} s`);
const time = (date) => date.toLocaleTimeString(undefined, { hourCycle: "h23" });
const atMost = (ms, some = true) => (!some ? "–" : ms === null ? "> 60 s" : `≤ ${duration(ms)}`);
const bytes = (size) => {
  const power = size < 1024 ? 0 : Math.min(4, Math.floor(Math.log2(size) / 10));
  return `${power ? (size / 1024 ** power).toFixed(1) : size} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
};
const ago = (seconds) => {
  if (seconds < 60) return "just now";
  const [size, name] = [[86400, "d"], [3600, "h"], [60, "min"]].find(([each]) => seconds >= each);
  return `${Math.floor(seconds / size)} ${name} ago`;
};
const day = (iso) => new Date(iso).toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" });
const sum = (numbers) => Object.values(numbers).reduce((a, b) => a + b, 0);

const ANSWERS = [
  ["edge", "Edge"], ["exact", "L1, exact"], ["semantic", "L1, semantic"], ["joined", "Joined"],
  ["generated", "Generated"], ["bypass", "Bypassed"], ["refused", "Refused"], ["error", "Failed"],
].map(([key, label]) => ({ key, label, colour: key }));
const HITS = ["edge", "exact", "semantic"];
const LOOKED_UP = [...HITS, "joined", "generated"];
const PERCENTILES = [{ key: "p50", label: "p50 ≤", colour: "p50" }, { key: "p99", label: "p99 ≤", colour: "p99" }];

const charts = {
  hit: new ShareChart($("hit-chart"), { label: "Hit rate by tier", series: ANSWERS.slice(0, 3), format: percent, size: "l" }),
  volume: new AmountChart($("volume-chart"), { label: "Requests per minute", series: ANSWERS, format: few, size: "l" }),
  similarity: new Histogram($("similarity-chart"), {
    label: "Similarity of the likest question", format: few,
    series: [{ key: "hit", label: "Served", colour: "semantic" }, { key: "refused", label: "Refused", colour: "generated" }],
  }),
  latency: Object.fromEntries(["edge", "origin", "generated"].map((name) => [name, new LatencyChart($(`latency-${name}`), {
    label: `Latency, ${name}`, series: PERCENTILES, format: duration })])),
};

function render(state) {
  renderHealth(state);
  warn(state.counted ? "" : "The counters cannot be reached: Redis does not answer. What is shown below is what was known last.");
  if (!state.counted) return;
  renderCharts(state.counted);
  renderTiles(state.counted);
  renderTables(state.counted.report);
}

function renderTiles({ hour, report, slot_s: slot, answers }) {
  show("hit-rate", percent(hour.hit_rate));
  const since = report.since ? day(report.since) : "the beginning";
  show("hit-rate-note", `last hour · ${percent(report.hit_rate)} since ${since}`);
  const total = sum(hour.answers);
  show("requests", count(total));
  // The slot before the one that is under way: that one is whole.
  const last = sum(Object.fromEntries(ANSWERS.map(({ key }) => [key, answers[key].at(-2)])));
  show("requests-note", `last hour · ${few((last * 60) / slot)} a minute now`);
  const { usd: money, tokens } = report;
  if (money) {
    show("money", usd(money.saved));
    const without = money.saved + money.spent;
    const missing = money.models_without_price.length ? ", not all models priced" : "";
    show("money-note", `${percent(without ? money.saved / without : null)} of ${usd(without)} without a cache${missing}`);
  } else {
    show("money", "–");
    show("money-note", "no prices: set ENCORE_PRICES");
  }
  const saved = sum(tokens.saved);
  show("tokens", compact.format(saved));
  show("tokens-note", `${percent(saved + sum(tokens.spent) ? saved / (saved + sum(tokens.spent)) : null)} of all · ${compact.format(hour.tokens.saved)} in the last hour`);
  const hit = hour.answers.edge ? "edge" : "origin";
  const hits = hour.answers.edge + hour.answers.exact + hour.answers.semantic;
  show("latency", atMost(hour.latency[hit].p50, hits));
  show("latency-note", `median at the ${hit} · generated ${atMost(hour.latency.generated.p50, hour.answers.generated)}`);
  show("since", report.since ? `since ${day(report.since)}` : "from the beginning");
}

function renderCharts(counted) {
  const { answers, hour, slot_s: step, start_s: start, latency } = counted;
  const length = answers.edge.length;
  const time = { start, step, count: length };
  const looked = Array.from({ length }, (_, index) => LOOKED_UP.reduce((total, key) => total + answers[key][index], 0));
  const lookedUp = LOOKED_UP.reduce((total, key) => total + hour.answers[key], 0);
  charts.hit.update({
    ...time,
    values: Object.fromEntries(HITS.map((key) => [key, answers[key].map((number, index) => (looked[index] ? number / looked[index] : null))])),
    whole: Object.fromEntries(HITS.map((key) => [key, lookedUp ? hour.answers[key] / lookedUp : null])),
  });
  charts.volume.update({
    ...time,
    values: Object.fromEntries(ANSWERS.map(({ key }) => [key, answers[key].map((number) => (number * 60) / step)])),
    whole: Object.fromEntries(ANSWERS.map(({ key }) => [key, (hour.answers[key] * 60) / (step * length)])),
  });
  for (const [name, chart] of Object.entries(charts.latency)) {
    chart.update({ ...time, values: latency[name], whole: hour.latency[name] });
  }
  const { similarity, semantic } = hour;
  charts.similarity.update({
    count: counted.similarity_bounds.length, bounds: counted.similarity_bounds, values: similarity,
    whole: { hit: semantic.hit, refused: semantic.refused },
  });
  const names = { hit: "Served", refused: "Refused", none: "Nothing alike", gone: "Entry gone", unread: "Too long", late: "Too late", failed: "Failed" };
  fill($("semantic"), Object.entries(names).flatMap(([key, label]) => [html("dt", {}, label), html("dd", {}, count(semantic[key]))]));
}

function renderTables(report) {
  const highest = Math.max(1, ...report.top_keys.map((key) => key.hits));
  const every = view === "*";
  for (const head of document.querySelectorAll("[data-every]")) head.hidden = !every;
  rows($("top"), report.top_keys.slice(0, 10), (key) => {
    const purge = html("button", { type: "button", class: "small", "aria-label": `Purge ${key.key}` }, "Purge…");
    purge.addEventListener("click", () => askPurge({ keys: [key.key] }, `the key ${key.key}`, key.tenant));
    const bar = svg("svg", { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { width: Math.max(2, (key.hits / highest) * 100), height: 8 }));
    return [
      html("th", { scope: "row", class: "mono" }, key.key),
      ...(every ? [html("td", {}, key.tenant)] : []),
      html("td", { class: "number" }, count(key.hits)),
      html("td", { class: "wide-only" }, bar),
      html("td", {}, ago(Math.max(0, (Date.now() - new Date(key.last)) / 1000))),
      html("td", { class: "number" }, purge),
    ];
  });
  $("top").hidden = !report.top_keys.length;
  $("top-none").hidden = report.top_keys.length > 0;
  const number = (text) => html("td", { class: "number" }, text);
  rows($("models"), report.models, (model) => [
    html("th", { scope: "row" }, model.name), number(percent(model.hit_rate)), number(count(model.hits)),
    number(compact.format(sum(model.tokens.saved))), number(compact.format(sum(model.tokens.spent))),
    number(model.usd ? usd(model.usd.saved) : "–"),
  ]);
  const tiers = [report.edge, report.origin];
  const line = (label, of) => [label, ...tiers.map(of)];
  const latency = (speed, p) => ({ latency_ms: told }) => atMost(told[speed][p], told[speed].count);
  rows($("tiers"), [
    line("Requests", (tier) => count(tier.requests)),
    line("Hit rate", (tier) => percent(tier.hit_rate)),
    ...Object.keys(report.edge.outcomes).map((outcome) => line(outcome[0].toUpperCase() + outcome.slice(1).replaceAll("_", " "), (tier) => count(tier.outcomes[outcome]))),
    line("Hit p50", latency("hit", "p50")), line("Hit p90", latency("hit", "p90")), line("Hit p99", latency("hit", "p99")),
    line("Sent from entries", (tier) => bytes(tier.bytes)),
  ], ([label, edge, origin]) => [html("th", { scope: "row" }, label), number(edge), number(origin)]);
  $("tenants-card").hidden = !report.tenants;
  if (report.tenants) {
    rows($("tenants"), report.tenants, (each) => [
      html("th", { scope: "row" }, each.name), number(percent(each.hit_rate)), number(count(each.hits)), number(count(each.misses)),
    ]);
    nameTenants(report.tenant_names);
  }
}

const STATES = {
  ok: ["✓", "is-ok", "ok"], off: ["–", "is-off", "not used"], quiet: ["–", "is-off", "not heard of in the last hour"],
  unknown: ["–", "is-off", "not known now"],
};

function renderHealth({ health, redis, process }) {
  fill($("health"), health.map((part) => {
    const [mark, look, text] = STATES[part.state] || ["!", "is-bad", part.state];
    const notes = [];
    if (part.heard_s) notes.push(`sent its counters ${ago(Math.max(0, Date.now() / 1000 - part.heard_s))}`);
    if (part.pending) notes.push(`${part.pending} control document${part.pending === 1 ? "" : "s"} not acknowledged yet`);
    if (part.here && part.state !== "off") notes.push("as this process sees it");
    const item = html("li", {}, html("span", { class: `mark ${look}`, "aria-hidden": "true" }, mark), part.name, html("span", { class: `state ${look}` }, text));
    if (notes.length) item.append(html("span", { class: "note quiet" }, notes.join(" · ")));
    return item;
  }));
  $("redis").hidden = $("evictions-tile").hidden = !redis;
  if (redis) {
    const facts = {
      Memory: redis.max_bytes ? `${bytes(redis.used_bytes)} of ${bytes(redis.max_bytes)}` : `${bytes(redis.used_bytes)}, no limit`,
      Policy: redis.policy || "unknown", "Keys evicted": count(redis.evicted_keys), "Keys expired": count(redis.expired_keys),
      Version: redis.servers > 1 ? `${redis.version}, ${redis.servers} servers` : redis.version,
    };
    fill($("redis"), Object.entries(facts).flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]));
    evictedBefore ??= redis.evicted_keys;
    show("evictions", count(redis.evicted_keys));
    const since = redis.evicted_keys - evictedBefore;
    show("evictions-note", `+${count(Math.max(0, since))} since this page opened`);
  }
  $("process").hidden = !process;
  if (process) show("process", `“This process” is ${process}.`);
}

function rows(table, items, cells) {
  fill(table.tBodies[0], items.map((item) => html("tr", {}, ...cells(item))));
}

// Put children in the place of others. Not while a pointer is down, for its click would be lost; and
// what had the focus has it again.
let held = false;
document.addEventListener("pointerdown", () => { held = true; });
for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => setTimeout(() => { held = false; }));

function fill(parent, children) {
  if (held) return;
  const focused = parent.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
  parent.replaceChildren(...children);
  if (focused) parent.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
}

// ---- which tenant

function nameTenants(names) {
  const select = $("view");
  if (select.options.length !== names.length + 1 && document.activeElement !== select) {
    select.replaceChildren(...["*", ...names].map((name) => html("option", { value: name }, name === "*" ? "All tenants" : name)));
    select.value = view;
  }
  if ($("tenant-names").childElementCount !== names.length) {
    $("tenant-names").replaceChildren(...names.map((name) => html("option", { value: name })));
  }
}

if (operator) {
  $("view").hidden = false;
  nameTenants([]);
  for (const each of document.querySelectorAll("[data-operator-only]")) each.hidden = false;
  $("view").addEventListener("change", () => { view = $("view").value; $("purge-tenant").value = view === "*" ? "" : view; listen(); });
} else {
  $("tenant").hidden = false;
}

// ---- live

const SILENCE_MS = 8000;
let stream = null;
let again = null;
let heardAt = 0;

function live(state, text) { $("live").dataset.state = state; show("live-text", text); }

function warn(text) { $("banner").hidden = !text; show("banner", text); }

setInterval(() => {
  if (heardAt && Date.now() - heardAt > SILENCE_MS) live("off", `Not heard of since ${time(new Date(heardAt))}`);
}, 1000);

function listen() {
  clearTimeout(again);
  stream?.close();
  stream = new EventSource(`/dashboard/events?tenant=${encodeURIComponent(view)}`);
  const heard = () => { heardAt = Date.now(); live("on", `Live · ${time(new Date())}`); };
  stream.addEventListener("state", (event) => { heard(); render(JSON.parse(event.data)); });
  stream.addEventListener("beat", heard);
  stream.addEventListener("signed-out", () => location.reload());
  stream.addEventListener("error", () => {
    if (stream.readyState !== EventSource.CLOSED) return; // the browser begins the next one itself
    live("off", "Not connected");
    again = setTimeout(checkSession, 3000);
  });
}

// A stream that was refused does not say why: the page itself does, and the probe which part is away.
async function checkSession() {
  try {
    const page = await fetch("/dashboard", { cache: "no-store" });
    if (page.ok && (await page.text()).includes('class="login"')) { location.reload(); return; }
    const { parts = {} } = await (await fetch("/readyz", { cache: "no-store" })).json();
    const ill = Object.entries(parts).filter(([, state]) => state !== "ok").map(([name, state]) => `${name} (${state})`);
    if (ill.length) warn(`Not as it should be: ${ill.join(", ")}. What is shown below is what was known last.`);
  } catch { warn("The origin does not answer. What is shown below is what was known last."); }
  listen();
}

// ---- purge

const labels = { tags: "Tag", keys: "Key (Encore-Key)", models: "Model", everything: "" };

$("purge-kind").addEventListener("change", () => {
  const kind = $("purge-kind").value;
  $("purge-name-row").hidden = kind === "everything";
  show("purge-name-label", labels[kind]);
});

$("purge").addEventListener("submit", (event) => {
  event.preventDefault();
  const kind = $("purge-kind").value, name = $("purge-name").value.trim();
  const tenant = operator ? $("purge-tenant").value.trim() : root.tenant;
  if (!tenant) { result("Which tenant? Name one.", true); $("purge-tenant").focus(); return; }
  if (kind !== "everything" && !name) { result(`Which ${labels[kind].toLowerCase()}? Name one.`, true); $("purge-name").focus(); return; }
  const asked = kind === "everything" ? { everything: true } : { [kind]: [name] };
  askPurge(asked, kind === "everything" ? "everything" : `the ${kind.slice(0, -1)} ${name}`, tenant);
});

function result(text, bad = false) {
  show("purge-result", text);
  $("purge-result").classList.toggle("is-bad", bad);
}

async function post(body) {
  const response = await fetch("/dashboard/purge", {
    method: "POST", headers: { "content-type": "application/json", "encore-csrf": csrf }, body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error.message);
  return answer;
}

async function askPurge(asked, name, tenant) {
  result("Looking…");
  try {
    const found = await post({ ...asked, tenant, dry_run: true });
    result("");
    if (!(await confirmed(asked, name, tenant, found))) return;
    const done = await post({ ...asked, tenant });
    const edge = { acknowledged: "The edge has acknowledged it.", pending: "The edge is told until it has it." }[done.edge] || "";
    result(`Purged ${name} of ${tenant}. ${edge}`);
  } catch (error) {
    result(error.message, true);
  }
}

function confirmed(asked, name, tenant, found) {
  const entries = `${found.complete ? "" : "at least "}${count(found.entries)} ${found.entries === 1 ? "entry" : "entries"} (${bytes(found.bytes)})`;
  show("confirm-title", `Purge ${name}?`);
  show("confirm-text", `Of ${tenant} this ends ${entries} in L1, and whatever the edge has of it. It cannot be undone.`);
  const word = asked.everything ? tenant : "";
  $("confirm-row").hidden = !word;
  $("confirm-word").value = "";
  show("confirm-label", `To go on, type ${tenant}`);
  const check = () => { $("confirm-yes").disabled = $("confirm-word").value.trim() !== word; };
  $("confirm-word").oninput = check;
  check();
  const dialog = $("confirm");
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

history.replaceState(null, "", "/dashboard"); // how one came here is of no use any more
listen();
