// Charts of one hour in slots, drawn as SVG by hand. They know numbers and names of colours (classes of
// dashboard.css), nothing of what is shown. A chart can be read by its legend: its values are those of
// the slot under the pointer, or that the arrow keys chose, else of the whole hour.

const NS = "http://www.w3.org/2000/svg";
const LEFT = 44, RIGHT = 6, TOP = 8, BOTTOM = 20;

export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export function html(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

// What all charts share: a plot that fits its figure, a legend, a cursor by pointer and by keys.
class Chart {
  // series: [{key, label, colour}]; format: a value to text; size: m or l, the least height.
  constructor(figure, { label, series, format, size = "m" }) {
    Object.assign(this, { label, series, format, at: null, data: null, width: 0, height: 0 });
    this.plot = svg("svg", { role: "img", tabindex: "0", "aria-label": label });
    this.values = new Map();
    const legend = html("ul", { class: "legend" });
    this.when = html("li", {});
    for (const each of series) {
      const value = html("b");
      this.values.set(each.key, value);
      legend.append(html("li", {}, html("span", { class: `swatch c-${each.colour}` }), each.label, value));
    }
    legend.append(this.when);
    figure.append(html("div", { class: `plot plot-${size}` }, this.plot), legend);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.choose(null));
    this.plot.addEventListener("blur", () => this.choose(null));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(([entry]) => {
      this.width = Math.round(entry.contentRect.width);
      this.height = Math.round(entry.contentRect.height);
      this.draw();
    }).observe(this.plot.parentElement);
  }

  update(data) { this.data = data; this.draw(); }

  get count() { return this.data ? this.data.count : 0; }

  x(index) { return LEFT + (index / this.count) * (this.width - LEFT - RIGHT); }

  point(event) {
    const place = event.clientX - this.plot.getBoundingClientRect().left - LEFT;
    const index = Math.floor((place / (this.width - LEFT - RIGHT)) * this.count);
    this.choose(index >= 0 && index < this.count ? index : null);
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.choose(null);
    if (!step || !this.count) return;
    event.preventDefault();
    const at = this.at === null ? (step < 0 ? this.count - 1 : 0) : this.at + step;
    this.choose(Math.min(this.count - 1, Math.max(0, at)));
  }

  choose(index) { if (index !== this.at) { this.at = index; this.draw(); } }

  draw() {
    if (!this.width || !this.data) return;
    this.plot.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.plot.replaceChildren();
    this.paint();
    if (this.at !== null) {
      const x = (this.x(this.at) + this.x(this.at + 1)) / 2;
      this.plot.append(svg("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM }));
    }
    const told = [];
    for (const { key, label } of this.series) {
      const value = this.at === null ? this.data.whole[key] : this.data.values[key][this.at];
      const text = value === null || value === undefined ? "–" : this.format(value);
      this.values.get(key).textContent = text;
      told.push(`${label} ${text}`);
    }
    this.when.textContent = this.at === null ? "" : this.name(this.at);
    this.plot.setAttribute("aria-label", `${this.label}: ${told.join(", ")} ${this.when.textContent}`);
  }

  rule(y, text) {
    this.plot.append(
      svg("line", { class: "gridline", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }),
      svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, text));
  }

  nothing(text) {
    const x = (LEFT + this.width) / 2;
    this.plot.append(svg("text", { class: "empty", x, y: this.height / 2 }, text));
  }

  // Columns, each series upon the one before; `share` of the highest is its height.
  columns(highest) {
    const bottom = this.height - BOTTOM, span = bottom - TOP;
    const gap = this.x(1) - this.x(0) > 4 ? 1 : 0;
    const base = new Array(this.count).fill(0);
    for (const { key, colour } of this.series) {
      let path = "";
      this.data.values[key].forEach((value, index) => {
        if (!value) return;
        const low = bottom - (base[index] / highest) * span;
        base[index] += value;
        const high = bottom - (base[index] / highest) * span;
        const width = Math.max(1, this.x(index + 1) - this.x(index) - gap);
        path += `M${this.x(index).toFixed(1)} ${low.toFixed(1)}h${width.toFixed(1)}V${high.toFixed(1)}h${(-width).toFixed(1)}z`;
      });
      if (path) this.plot.append(svg("path", { class: `c-${colour}`, d: path, stroke: "none" }));
    }
  }
}

class TimeChart extends Chart {
  name(index) { return clock.format(new Date((this.data.start + index * this.data.step) * 1000)); }

  times() {
    const { start, step } = this.data;
    const every = this.width < 460 ? 1200 : 600;
    for (let time = Math.ceil(start / every) * every; time < start + step * this.count; time += every) {
      const x = this.x((time - start) / step);
      if (x < LEFT + 12 || x > this.width - 20) continue;
      const text = clock.format(new Date(time * 1000));
      this.plot.append(svg("text", { x, y: this.height - 4, "text-anchor": "middle" }, text));
    }
  }
}

// Shares of a whole, 0 to 1, as columns upon each other.
export class ShareChart extends TimeChart {
  paint() {
    const bottom = this.height - BOTTOM;
    for (const share of [0, 0.25, 0.5, 0.75, 1]) this.rule(bottom - share * (bottom - TOP), `${share * 100} %`);
    this.columns(1);
    this.times();
    if (!this.series.some(({ key }) => this.data.values[key].some((value) => value !== null))) this.nothing("Nothing was looked up in the last hour.");
  }
}

// Amounts as columns upon each other.
export class AmountChart extends TimeChart {
  paint() {
    const sums = Array.from({ length: this.count }, (_, index) =>
      this.series.reduce((sum, { key }) => sum + this.data.values[key][index], 0));
    const highest = roundUp(Math.max(...sums));
    const bottom = this.height - BOTTOM;
    for (const share of [0, 0.5, 1]) this.rule(bottom - share * (bottom - TOP), this.format(highest * share));
    this.columns(highest);
    this.times();
    if (!sums.some(Boolean)) this.nothing("No requests in the last hour.");
  }
}

// Lines on a logarithmic axis, in milliseconds; a line is broken where there is no value.
export class LatencyChart extends TimeChart {
  paint() {
    const all = this.series.flatMap(({ key }) => this.data.values[key].filter((value) => value !== null));
    const bottom = this.height - BOTTOM;
    const low = all.length ? Math.floor(Math.log10(Math.min(...all))) : 0;
    const high = Math.max(low + 2, all.length ? Math.ceil(Math.log10(Math.max(...all))) : 0);
    const y = (value) => bottom - ((Math.log10(value) - low) / (high - low)) * (bottom - TOP);
    for (let power = low; power <= high; power += 1) this.rule(y(10 ** power), this.format(10 ** power));
    for (const { key, colour } of this.series) {
      let path = "", open = false;
      this.data.values[key].forEach((value, index) => {
        if (value === null) { open = false; return; }
        path += `${open ? "L" : "M"}${this.x(index).toFixed(1)} ${y(value).toFixed(1)}H${this.x(index + 1).toFixed(1)}`;
        open = true;
      });
      if (path) this.plot.append(svg("path", { class: `c-${colour}`, d: path }));
    }
    this.times();
    if (!all.length) this.nothing("None in the last hour.");
  }
}

// How many there are of each bucket; `bounds` are the buckets' upper bounds.
export class Histogram extends Chart {
  name(index) { return index ? `${this.data.bounds[index - 1]} to ${this.data.bounds[index]}` : `up to ${this.data.bounds[0]}`; }

  paint() {
    const sums = Array.from({ length: this.count }, (_, index) =>
      this.series.reduce((sum, { key }) => sum + this.data.values[key][index], 0));
    const highest = roundUp(Math.max(...sums));
    const bottom = this.height - BOTTOM;
    for (const share of [0, 0.5, 1]) this.rule(bottom - share * (bottom - TOP), this.format(highest * share));
    this.columns(highest);
    this.data.bounds.forEach((bound, index) => {
      if (index % 4 === 0) this.plot.append(svg("text", { x: this.x(index + 1), y: this.height - 4, "text-anchor": index === this.count - 1 ? "end" : "middle" }, index ? bound : `≤ ${bound}`));
    });
    if (!sums.some(Boolean)) this.nothing("No decisions in the last hour.");
  }
}

// The next number whose first digit alone is not 0, and whose half is whole.
function roundUp(value) {
  if (value <= 2) return 2;
  const unit = 10 ** Math.floor(Math.log10(value));
  const digits = unit === 1 ? [2, 4, 6, 8, 10] : [1, 2, 3, 4, 5, 6, 8, 10];
  return unit * digits.find((digit) => digit * unit >= value);
}
