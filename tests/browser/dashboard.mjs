// Visits the dashboard in a real Chromium, as its user does, and prints what it saw as JSON.
import { chromium } from "playwright-core";

const { program, url, admin, operator, client, model, pictures } = JSON.parse(process.argv[2]);
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: program, args: FLAGS });
const said = [], elsewhere = [], addresses = [];
const seen = {};

async function open(width, height, colorScheme, storageState) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, storageState });
  const page = await context.newPage();
  page.setDefaultTimeout(30000);
  page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => said.push(`pageerror: ${error.message}`));
  page.on("request", (request) => {
    addresses.push(request.url());
    if (new URL(request.url()).origin !== new URL(url).origin) elsewhere.push(request.url());
  });
  return page;
}

async function login(page, key) {
  await page.goto(`${url}/dashboard`);
  await page.getByLabel("API key of an admin").fill(key);
  await page.keyboard.press("Enter");
  await page.waitForSelector('#live[data-state="on"]');
}

function ask(text) {
  return fetch(`${url}/v1/chat/completions`, {
    method: "POST", headers: { authorization: `Bearer ${client}`, "content-type": "application/json", "encore-tags": "homes" },
    body: JSON.stringify({ model, messages: [{ role: "user", content: text }] }),
  }).then((response) => { if (!response.ok) throw new Error(`status ${response.status}`); return response.headers.get("cache-status"); });
}

const text = (page, id) => page.locator(`#${id}`).textContent();
const until = (page, id, wanted) => page.waitForFunction(([i, w]) => document.getElementById(i).textContent.includes(w), [id, wanted]);
const widths = (page) => page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);

// Of every text that shows, the contrast with what lies under it (WCAG 2.2, 1.4.3), where it is less than 4.5.
const faint = (page) => page.evaluate(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || node.closest(".unseen, .skip, option, noscript")) continue;
    const style = getComputedStyle(node);
    let under = node, ground = [0, 0, 0, 0];
    while (under && ground[3] === 0) { ground = rgb(getComputedStyle(under).backgroundColor); under = under.parentElement; }
    const [a, b] = [light(rgb(node.namespaceURI.includes("svg") ? style.fill : style.color)), light(ground)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) found.push(`${node.tagName} ${node.className} ${node.textContent.slice(0, 30)} ${contrast.toFixed(2)}`);
  }
  return found;
});

try {
  // ---- a key that is no admin's is refused, in words
  const stranger = await open(1440, 1000, "light");
  await stranger.goto(`${url}/dashboard`);
  await stranger.getByLabel("API key of an admin").fill(client);
  await stranger.getByRole("button", { name: "Sign in" }).click();
  seen.refusal = await stranger.getByRole("alert").textContent();
  seen.refusalFaint = await faint(stranger);
  await stranger.context().close();
  said.length = 0; // the browser itself tells of the 403 that was asked for

  // ---- the operator, wide and light
  const wide = await open(1440, 1000, "light");
  await login(wide, operator);
  seen.url = wide.url();
  seen.cookies = (await wide.context().cookies()).map(({ name, httpOnly, secure, sameSite, path }) => ({ name, httpOnly, secure, sameSite, path }));
  seen.cookiesOfScripts = await wide.evaluate(() => document.cookie);
  seen.stored = await wide.evaluate(() => localStorage.length + sessionStorage.length);

  // ---- it lives: traffic runs, and the page that is open shows it
  seen.before = await text(wide, "requests");
  seen.statuses = [];
  for (let number = 0; number < 5; number += 1) seen.statuses.push(await ask("What is near the park?"));
  await until(wide, "requests", "5");
  await until(wide, "hit-rate", "80.0 %");
  seen.after = await text(wide, "requests");
  seen.saved = await text(wide, "tokens");
  seen.chart = await wide.locator("#hit-chart path.c-exact").getAttribute("d");
  seen.told = await wide.locator("#hit-chart svg").getAttribute("aria-label");
  await ask("What is near the station?");
  await until(wide, "requests", "6");
  seen.health = await wide.locator("#health li").allTextContents();
  seen.evictions = await text(wide, "evictions");
  seen.wide = await widths(wide);
  seen.wideFaint = await faint(wide);
  if (pictures) await wide.screenshot({ path: `${pictures}/light-1440.png`, fullPage: true });

  // ---- a chart is read by keys
  await wide.locator("#volume-chart svg").focus();
  await wide.keyboard.press("ArrowLeft");
  seen.atCursor = await wide.locator("#volume-chart .legend li").last().textContent();
  await wide.keyboard.press("Escape");

  // ---- a purge is looked at, left, asked for again and confirmed
  const purge = wide.getByRole("button", { name: /^Purge [0-9a-f]{16}$/ }).first();
  const dialog = wide.getByRole("dialog");
  await purge.click();
  await dialog.waitFor();
  seen.asked = await text(wide, "confirm-text");
  await wide.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  seen.left = await ask("What is near the park?");
  await purge.click();
  await dialog.waitFor();
  await dialog.getByRole("button", { name: "Purge" }).click();
  await until(wide, "purge-result", "Purged");
  seen.purged = await ask("What is near the park?");

  // ---- of everything only by typing whose
  await wide.getByLabel("By", { exact: true }).selectOption("everything");
  await wide.locator("#purge-tenant").fill("acme");
  await wide.getByRole("button", { name: "Look what it would end…" }).click();
  await dialog.waitFor();
  seen.everythingBefore = await wide.locator("#confirm-yes").isDisabled();
  await wide.locator("#confirm-word").fill("acme");
  seen.everythingAfter = await wide.locator("#confirm-yes").isDisabled();
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await wide.locator("#view").selectOption("acme");
  await wide.waitForFunction(() => document.querySelectorAll("#top tbody th").length > 0 && document.querySelector("#top [data-every]").hidden);

  // ---- one tenant's admin, on a phone, dark
  const phone = await open(390, 844, "dark");
  await login(phone, admin);
  await until(phone, "hit-rate", "%");
  seen.phone = await widths(phone);
  seen.phoneFaint = await faint(phone);
  seen.ground = await phone.evaluate(() => getComputedStyle(document.body).backgroundColor);
  seen.tenant = await text(phone, "tenant");
  seen.operatorsParts = await phone.locator("#view, #redis, #evictions-tile, #tenants-card, #purge-tenant, #process").evaluateAll(
    (nodes) => nodes.filter((node) => node.checkVisibility()).map((node) => node.id));
  if (pictures) await phone.screenshot({ path: `${pictures}/dark-390.png`, fullPage: true });

  // ---- who signs out in one window is out in all of them
  const second = await open(390, 844, "dark", await phone.context().storageState());
  await second.goto(`${url}/dashboard`);
  await second.waitForSelector('#live[data-state="on"]');
  await phone.getByRole("button", { name: "Sign out" }).click();
  await phone.waitForSelector("body.login");
  await second.waitForSelector("body.login");
  seen.cookiesLeft = (await phone.context().cookies()).length;
} finally {
  await browser.close();
}
console.log(JSON.stringify({ ...seen, said, elsewhere, addresses: [...new Set(addresses)] }));
