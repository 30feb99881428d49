// Lines over time as SVG, without a library.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 38, RIGHT = 8, TOP = 6, BOTTOM = 18, HEIGHT = 150;

function node(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// One series: { name, now (text), points: [[ms, value or null], ...], step: whether a value holds until the
// next }; values are parts of a whole, 1 is the line that is drawn across.
export class Chart {
  constructor(title, { mark }) {
    this.title = title;
    this.mark = mark;
    this.element = document.createElement("figure");
    this.element.className = "chart";
    this.caption = document.createElement("figcaption");
    this.caption.textContent = title;
    this.svg = node("svg", { role: "img", height: HEIGHT });
    this.legend = document.createElement("ul");
    this.legend.className = "legend";
    this.element.append(this.caption, this.svg, this.legend);
    this.series = [];
    this.missed = [];
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  show(series, missed = []) {
    this.series = series;
    this.missed = missed;
    this.draw();
  }

  draw() {
    const width = this.element.clientWidth;
    if (!width) return;
    const points = this.series.flatMap((s) => s.points);
    const times = points.map(([at]) => at);
    const last = Math.max(...times), first = Math.min(...times);
    const highest = Math.max(1, ...points.map(([, value]) => value ?? 0));
    const top = this.mark ? Math.min(3, Math.max(1.25, highest * 1.05)) : 1;
    const x = (at) => LEFT + ((at - first) / Math.max(1, last - first)) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - Math.min(value, top) / top) * (HEIGHT - TOP - BOTTOM);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren();
    for (const value of [0, 0.5, 1, 2].filter((v) => v <= top)) {
      const line = { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) };
      this.svg.append(node("line", { ...line, class: value === 1 && this.mark ? "mark" : "grid" }));
      this.svg.append(node("text", { x: LEFT - 4, y: y(value) + 4, class: "at-end" }, `${value * 100} %`));
    }
    if (times.length) {
      const bottom = HEIGHT - 4;
      this.svg.append(node("text", { x: LEFT, y: bottom }, last > first ? ago(last - first) : ""));
      this.svg.append(node("text", { x: width - RIGHT, y: bottom, class: "at-end" }, "last decision"));
    }
    for (const at of this.missed) {
      const line = { x1: x(at), x2: x(at), y1: HEIGHT - BOTTOM - 6, y2: HEIGHT - BOTTOM, class: "missed" };
      this.svg.append(node("line", line));
    }
    this.series.forEach((s, i) => this.svg.append(...lines(s, i, x, y)));
    this.legend.replaceChildren(...this.series.map(entry));
    const now = this.series.map((s) => `${s.name} ${s.now}`).join(", ") || "nothing yet";
    this.svg.setAttribute("aria-label", `${this.title}. Now: ${now}`);
  }
}

function lines(series, i, x, y) {
  let path = "", open = false;
  for (const [at, value] of series.points) {
    if (value === null) {
      open = false;
      continue;
    }
    if (!open) path += `M${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    else if (series.step) path += `H${x(at).toFixed(1)}V${y(value).toFixed(1)}`;
    else path += `L${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    open = true;
  }
  const made = path ? [node("path", { d: path, class: `line s${i % 6}` })] : [];
  const known = series.points.findLast(([, value]) => value !== null);
  if (known) made.push(node("circle", { cx: x(known[0]), cy: y(known[1]), r: 2.5, class: `dot s${i % 6}` }));
  return made;
}

function entry(series, i) {
  const item = document.createElement("li");
  const swatch = node("svg", { width: 22, height: 8, "aria-hidden": "true" });
  swatch.append(node("line", { x1: 0, x2: 22, y1: 4, y2: 4, class: `line s${i % 6}` }));
  item.append(swatch, ` ${series.name} `, Object.assign(document.createElement("b"), { textContent: series.now }));
  return item;
}

function ago(ms) {
  const seconds = Math.round(ms / 1000);
  return seconds < 120 ? `${seconds} s before` : `${Math.round(seconds / 60)} min before`;
}
