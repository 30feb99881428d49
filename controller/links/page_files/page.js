// The page: reads the operator API through /api/ and shows it. What comes from outside is put in as text.
import { Chart } from "./chart.js";

const POLL_MS = 1000, TIMEOUT_MS = 5000, REOPEN_MS = 5000, NOTICE_MS = 12000;
const KEPT = 200, SHOWN_DECISIONS = 40, SHOWN_USERS = 64, SHOWN_UES = 64;
const MODES = {
  active: "decide and act",
  shadow: "decide and record, act on nothing",
  frozen: "hold what is in force",
  released: "everything back to full",
};
const STALE_S = 2;
const ASKED_FIRST = new Set(["released", "shadow"]);
const RESOURCES = { ul: "Uplink", edge: "Edge GPU", dl: "Downlink" };
const COLUMNS = {
  ue_id: "UE", slice: "Slice", cqi: "CQI", snr_db: "SNR", five_qi: "5QI", priority_level: "Priority",
  snssai: "S-NSSAI", mcs: "MCS", layers: "layers", queued_bytes: "queue", bler: "BLER", bps: "rate", prb: "PRB",
};

const $ = (id) => document.getElementById(id);

function h(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// ---- numbers ---------------------------------------------------------------------------------------------

const words = (name) => name.replaceAll("_", " ");
const three = (value) => String(Number(value.toPrecision(3)));
const several = (values) => (values ? values.slice(0, 4).map(three).join(", ") + (values.length > 4 ? `, ... (${values.length})` : "") : "-");
const percent = (part) => `${(part * 100).toFixed(1)} %`;
const seconds = (s) => (s === null ? "never" : s < 10 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`);
const withUnit = (text, unit) => (unit === "1" || !unit ? text : `${text} ${unit}`);
const clockTime = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });
const atMs = (record) => record.time_ns / 1e6;
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function duration(s) {
  if (s < 120) return `${Math.round(s)} s`;
  return s < 7200 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

function bytes(n) {
  return n < 1000 ? `${n} B` : n < 1e6 ? `${three(n / 1e3)} kB` : `${three(n / 1e6)} MB`;
}

// The worst user of a measure, as [user, value, target]; undefined where there is none.
function worst(measure) {
  const users = Object.entries(measure.users).map(([user, [value, target]]) => [user, value, target]);
  const sign = measure.better === "lower" ? 1 : -1;
  return users.reduce((w, u) => (w === undefined || sign * (u[1] - w[1]) > 0 ? u : w), undefined);
}

// How much of what was promised a value takes: above 1 is missed; null where that is no ratio.
function ofTarget(measure, value, target) {
  if (!(target > 0) || value < 0) return null;
  return measure.better === "lower" ? value / target : target / value;
}

// Whether a value is worse than its target, where the measure is judged.
function missed(measure, value, target) {
  return measure.met !== null && target !== null && (measure.better === "lower" ? value > target : value < target);
}

// ---- parts -----------------------------------------------------------------------------------------------

const shown = new WeakMap();

// Calls `make` where `key` is not what the element shows already: what stands can be selected and read.
function fill(element, key, make) {
  const text = JSON.stringify(key);
  if (shown.get(element) === text) return;
  shown.set(element, text);
  element.replaceChildren(...make());
}

function say(element, text, kind = "") {
  if (element.textContent !== text) element.textContent = text;
  element.classList.toggle("is-good", kind === "good");
  element.classList.toggle("is-bad", kind === "bad");
  element.classList.toggle("is-warn", kind === "warn");
}

function facts(element, pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  fill(element, known, () =>
    known.map(([name, value, wide]) => h("div", { class: wide ? "wide" : null }, h("dt", {}, name), h("dd", {}, value))),
  );
}

function reasons(element, texts) {
  fill(element, texts, () => texts.map((text) => h("li", {}, text)));
}

function bar(part, over) {
  const inner = h("i", { class: over ? "over" : null });
  inner.style.width = `${Math.round(Math.min(1, Math.max(0, part)) * 100)}%`;
  return h("span", { class: "bar", "aria-hidden": "true" }, inner);
}

// A table that shows rows of cells: a text, or { text, kind, bar, over }. Columns are { name, kind }: "number",
// "long", "row" (the row's own name).
class Table {
  constructor(label, { stack = false, focus = !stack } = {}) {
    this.body = h("tbody");
    this.head = h("tr");
    this.label = label;
    this.stack = stack;
    this.table = h("table", { class: stack ? "stack" : null, "aria-label": label, role: "table" }, h("thead", {}, this.head), this.body);
    this.element = h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: focus ? "0" : null }, this.table);
  }

  show(columns, rows, empty) {
    this.table.hidden = !rows.length;
    fill(this.head, columns, () => columns.map((c) => h("th", { scope: "col", class: c.kind === "row" ? null : c.kind }, c.name)));
    fill(this.body, [columns, rows], () => rows.map((row) => h("tr", { role: "row" }, ...row.map((cell, i) => this.cell(columns[i], cell)))));
    if (!rows.length) this.empty ??= this.element.appendChild(h("p", { class: "soft" }));
    if (this.empty) this.empty.textContent = rows.length ? "" : empty;
  }

  cell(column, cell) {
    const { text, kind, bar: part, over } = typeof cell === "string" ? { text: cell } : cell;
    const classes = [column.kind === "row" ? null : column.kind, kind].filter(Boolean).join(" ");
    const own = column.kind === "row";
    const made = own
      ? h("th", { scope: "row", role: "rowheader" }, text)
      : h("td", { role: "cell", "data-label": this.stack ? column.name : null, class: classes || null }, text);
    if (part !== undefined && part !== null) made.append(bar(part, over));
    return made;
  }
}

// ---- commands --------------------------------------------------------------------------------------------

let noticeTimer = 0;

function notice(text, good) {
  clearTimeout(noticeTimer);
  const element = $("notice");
  say(element, text, good ? "" : "bad");
  noticeTimer = setTimeout(() => say(element, ""), NOTICE_MS);
}

async function command(method, request) {
  try {
    const answer = await fetch(`api/${method}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
      signal: AbortSignal.timeout(2 * TIMEOUT_MS),
    });
    const result = await answer.json();
    notice(capital(result.message ?? result.error ?? answer.statusText), result.ok === true);
  } catch (error) {
    notice(`${method}: the controller did not answer (${error.message})`, false);
  }
  await poll();
}

function confirmed(title, text, yes) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  return new Promise((resolve) => {
    const end = (answer) => () => {
      $("confirm-yes").onclick = $("confirm-no").onclick = dialog.oncancel = null;
      if (dialog.open) dialog.close();
      resolve(answer);
    };
    $("confirm-yes").onclick = end(true);
    $("confirm-no").onclick = dialog.oncancel = end(false);
    dialog.showModal();
    $("confirm-no").focus();
  });
}

// ---- one slice -------------------------------------------------------------------------------------------

// The switch of a slice's policy, or of one hop's where hops can have their own.
class Policy {
  constructor(cell, slice) {
    this.slice = null;
    this.hop = h("select", { onchange: () => this.reset() });
    this.select = h("select", { onchange: () => this.update() });
    this.button = h("button", { type: "button", onclick: () => this.send(cell, slice) }, "Switch");
    this.button.setAttribute("aria-label", `Switch the policy of slice ${slice} of cell ${cell}`);
    this.ofHop = h("label", {}, "of ", this.hop);
    this.element = h("div", { class: "policy" }, h("label", {}, "Policy ", this.select), this.ofHop, this.button);
  }

  // What is played where the switch stands.
  get current() {
    const { options } = this.slice;
    return options.hop_policies?.[this.hop.value]?.policy ?? options.policy;
  }

  send(cell, slice) {
    this.chosen = false;
    command("SwitchPolicy", { cell_id: cell, slice, policy: this.select.value, hop: this.hop.value });
  }

  reset() {
    this.select.value = this.current;
    this.update();
  }

  update() {
    this.chosen = this.select.value !== this.current;
    this.button.disabled = this.locked || !this.chosen;
  }

  show(slice, locked) {
    this.element.hidden = !slice?.policies.length;
    if (this.element.hidden) return;
    this.slice = slice;
    this.ofHop.hidden = !slice.hops.length;
    fill(this.hop, slice.hops, () => ["", ...slice.hops].map((hop) => h("option", { value: hop }, hop || "all hops")));
    fill(this.select, slice.policies, () => slice.policies.map((name) => h("option", { value: name }, name)));
    this.select.disabled = this.hop.disabled = this.locked = locked;
    // What somebody is about to switch stays, whatever is played meanwhile.
    if (this.chosen) this.update();
    else this.reset();
  }
}

class Slice {
  constructor(cell, name) {
    this.name = name;
    this.badge = h("span", { class: "badge" });
    this.policy = new Policy(cell, name);
    this.facts = h("dl", { class: "facts" });
    this.resources = new Table(`Resources of slice ${name}`, { stack: true });
    this.measures = new Table(`Measures of slice ${name}`, { stack: true });
    this.users = new Table(`Users of slice ${name}`);
    this.usersTitle = h("summary");
    this.inForce = new Chart("In force, of the maximum", { mark: false });
    this.delays = new Chart("Measures of the worst user, of their budget", { mark: true });
    this.element = h(
      "section", { class: "slice", "aria-label": `Slice ${name}` },
      h("div", { class: "head" }, h("h3", {}, `Slice ${name}`, this.badge), this.policy.element),
      this.facts,
      h(
        "div", { class: "pair" },
        h("div", {}, h("h4", {}, "Resources"), this.resources.element),
        h("div", {}, h("h4", {}, "Measures"), this.measures.element),
      ),
      h("div", { class: "pair" }, this.inForce.element, this.delays.element),
      h("details", {}, this.usersTitle, this.users.element),
    );
  }

  show(cell, record, of, locked) {
    const closed = of.closed;
    const [text, kind] = verdictOf(closed);
    say(this.badge, text, kind);
    const played = cell.slices.find((s) => s.slice === this.name);
    this.policy.show(played, locked);
    const hour = cell.qos.find((q) => q.slice === this.name);
    const manual = cell.manual.find((m) => m.slice === this.name);
    facts(this.facts, [
      ["QoS of the last hour", hour ? `${percent(hour.met / hour.judged)} (${hour.met} of ${hour.judged})` : "nothing to judge"],
      ["Active flows judged", String(closed.users)],
      ["Service", played?.service],
      ["Choices that explored", typeof played?.explored === "number" ? percent(played.explored) : null],
      ["Set by hand", manual ? `${byHand(manual)}, ${Math.round(manual.left_s)} s left` : null],
      ["Nothing learned", grouped(closed.unattributed), true],
      ["Given more than asked for", of.rescue ? rescueText(of.rescue) : null, true],
      ["Failed", of.failed ? Object.entries(of.failed).map(([what, why]) => `${what}: ${why}`).join("; ") : null, true],
    ]);
    this.showResources(cell, record, of);
    this.showMeasures(closed);
    this.showUsers(of);
  }

  showResources(cell, record, of) {
    const choices = of.choices.filter((c) => !c.user);
    const rows = Object.entries(RESOURCES).map(([lever, name]) => {
      const [value, most, unit] = inForce(record, this.name, lever);
      const choice = choices.find((c) => c.lever === lever);
      const gone = !cell.connected && lever !== "edge";
      const now = gone ? "its gNB is gone" : `${value} of ${most} ${unit}`;
      return [name, { text: now, kind: "tight", bar: gone || !most ? null : value / most }, asked(choice, of, lever), why(choice, of, lever)];
    });
    for (const c of choices.filter((c) => !(c.lever in RESOURCES)))
      rows.push([capital(words(c.lever)), `${three(c.action)} ${c.unit}`, asked(c, of, c.lever), why(c, of, c.lever)]);
    const told = Object.keys(of.settings).length;
    if (told) rows.push(["Settings", `of ${told} users`, "", whyOfUsers(of)]);
    this.resources.show(
      [{ name: "Lever", kind: "row" }, { name: "In force" }, { name: "Asked for" }, { name: "Why", kind: "whole" }], rows, "",
    );
  }

  showMeasures(closed) {
    const rows = Object.entries(closed.measures).map(([name, measure]) => {
      const of = worst(measure);
      const part = of ? ofTarget(measure, of[1], of[2]) : null;
      const target = of && of[2] !== null ? `${measure.better === "lower" ? "at most" : "at least"} ${withUnit(three(of[2]), measure.unit)}` : "-";
      return [words(name), { text: of ? withUnit(three(of[1]), measure.unit) : "-", kind: "tight", bar: part, over: measure.met === 0 }, target, met(measure.met)];
    });
    this.measures.show(
      [{ name: "Measure", kind: "row" }, { name: "Worst user" }, { name: "Budget" }, { name: "Kept" }],
      rows, "No measure: no user was judged in the last control slot.",
    );
  }

  showUsers(of) {
    const measures = Object.entries(of.closed.measures);
    const names = [...new Set([...measures.flatMap(([, m]) => Object.keys(m.users)), ...Object.keys(of.settings)])];
    const settings = [...new Set(Object.values(of.settings).flatMap((told) => Object.keys(told)))];
    const whys = new Map(of.choices.filter((c) => c.user).map((c) => [c.user, `${c.method}: ${c.why}`]));
    const rows = names.slice(0, SHOWN_USERS).map((user) => [
      user,
      ...measures.map(([, m]) => {
        if (!(user in m.users)) return "-";
        const [value, target] = m.users[user];
        return { text: withUnit(three(value), m.unit), kind: missed(m, value, target) ? "bad" : null };
      }),
      ...settings.map((name) => several(of.settings[user]?.[name])),
      ...(whys.size ? [whys.get(user) ?? "-"] : []),
    ]);
    const more = names.length - rows.length;
    say(this.usersTitle, `Flows and users (${names.length}${more > 0 ? `, the first ${rows.length}` : ""})`);
    this.users.show(
      [
        { name: "Flow", kind: "row" },
        ...measures.map(([name]) => ({ name: words(name), kind: "number" })),
        ...settings.map((name) => ({ name: words(name), kind: "number" })),
        ...(whys.size ? [{ name: "Why", kind: "tight" }] : []),
      ],
      rows, "No flow was judged in the last control slot.",
    );
  }

  chart(history) {
    const known = history.filter((record) => this.name in record.slices);
    const last = known.at(-1);
    this.inForce.show(
      Object.keys(RESOURCES).map((lever) => {
        const [value, , unit] = last ? inForce(last, this.name, lever) : ["-", 0, ""];
        return {
          name: lever.toUpperCase() === "EDGE" ? "GPU" : lever.toUpperCase(),
          now: `${value} ${unit}`,
          step: true,
          points: known.map((record) => {
            const [now, most] = inForce(record, this.name, lever);
            return [atMs(record), most ? now / most : null];
          }),
        };
      }),
    );
    const names = [...new Set(known.flatMap((record) => Object.keys(record.slices[this.name].closed.measures)))].slice(0, 6);
    this.delays.show(
      names.map((name) => {
        const of = (record) => record.slices[this.name].closed.measures[name];
        const now = last && of(last) ? worst(of(last)) : undefined;
        return {
          name: words(name),
          now: now ? withUnit(three(now[1]), of(last).unit) : "-",
          points: known.map((record) => {
            const w = of(record) ? worst(of(record)) : undefined;
            return [atMs(record), w ? ofTarget(of(record), w[1], w[2]) : null];
          }),
        };
      }),
      known.filter((record) => record.slices[this.name].closed.met === 0).map(atMs),
    );
  }
}

// What a slice may use of a lever from a decision on: [value, maximum, unit].
function inForce(record, slice, lever) {
  if (lever === "edge") return [record.gpu_mhz ?? record.max_mhz, record.max_mhz, "MHz"];
  const quota = record.quotas[slice];
  return [quota ? quota[lever === "ul" ? 0 : 1] : record.prb, record.prb, "PRB"];
}

function asked(choice, of, lever) {
  if (lever === "ul" || lever === "dl") {
    const [wanted, floor] = of.demand[lever];
    return `${wanted} PRB${floor && floor !== wanted ? `, at least ${floor}` : ""}`;
  }
  if (lever === "edge") return of.demand.gpu_mhz ? `${of.demand.gpu_mhz} MHz` : "no GPU";
  return choice ? `${three(choice.action)} ${choice.unit}` : "";
}

function why(choice, of, lever) {
  const parts = [];
  if (of.manual?.[lever] !== undefined && of.manual[lever] !== null) parts.push("set by hand");
  if (of.rescue?.[lever]) parts.push(`at least ${of.rescue[lever][0]}: ${of.rescue[lever][1]}`);
  if (choice) {
    parts.push(`${choice.method}: ${choice.why}`);
    if (choice.state !== null) parts.push(`state ${three(choice.state)} PRB`);
    if (choice.binding) parts.push(`held back by ${choice.binding}`);
  }
  const cut = of.granted[lever]?.[1];
  if (cut) parts.push(cut);
  return parts.join("; ") || "-";
}

// Levers -> reasons as a text, equal reasons told once; null where there is none.
function grouped(byLever) {
  const levers = new Map();
  for (const [lever, reason] of Object.entries(byLever)) levers.set(reason, [...(levers.get(reason) ?? []), lever]);
  return [...levers].map(([reason, of]) => `${of.join(", ")}: ${reason}`).join("; ") || null;
}

// Who chose the settings of users; why is each user's own.
function whyOfUsers(of) {
  const methods = new Set(of.choices.filter((c) => c.user).map((c) => c.method));
  return methods.size ? `${[...methods].join(", ")}: for each user, below` : "";
}

function rescueText(rescue) {
  return Object.entries(rescue).map(([lever, [least, reason]]) => `${lever} at least ${least}: ${reason}`).join("; ");
}

function byHand(manual) {
  return [["UL", manual.ul], ["DL", manual.dl]].filter(([, prb]) => prb !== null).map(([d, prb]) => `${d} ${prb} PRB`).join(", ");
}

function verdictOf(closed) {
  if (closed.met === 1) return ["QoS kept", "good"];
  if (closed.met === 0) return ["QoS missed", "bad"];
  return [closed.busy ? "QoS not known" : "idle", ""];
}

function met(bit) {
  return bit === null ? "-" : bit ? { text: "kept", kind: "good" } : { text: "missed", kind: "bad" };
}

// ---- one cell --------------------------------------------------------------------------------------------

class Cell {
  constructor(name) {
    this.name = name;
    this.history = [];
    this.slices = new Map();
    this.badge = h("span", { class: "badge" });
    this.reasons = h("ul", { class: "reasons", "aria-label": `What is wrong with cell ${name}` });
    this.facts = h("dl", { class: "facts" });
    this.modes = Object.entries(MODES).map(([mode, text]) =>
      h("button", { type: "button", title: text, "data-mode": mode, onclick: () => this.setMode(mode) }, mode),
    );
    this.sliceList = h("div", { class: "slices" });
    this.waiting = h("p", { class: "soft block" });
    this.decisions = new Table(`Decisions of cell ${name}`, { stack: true, focus: true });
    this.hosts = new Table(`Hosts and clocks of cell ${name}`, { stack: true });
    this.ues = new Table(`UEs of cell ${name}`);
    this.uesTitle = h("h3");
    this.element = h(
      "section", { class: "cell", "aria-label": `Cell ${name}` },
      h(
        "div", { class: "head" },
        h("h2", {}, `Cell ${name}`, this.badge),
        h("fieldset", {}, h("legend", {}, "Mode"), ...this.modes),
      ),
      this.reasons,
      this.facts,
      this.sliceList,
      this.waiting,
      h("div", { class: "block" }, h("h3", {}, "Decisions"), this.decisions.element),
      h("div", { class: "block" }, h("h3", {}, "Hosts and clocks"), this.hosts.element),
      h("div", { class: "block" }, this.uesTitle, this.ues.element),
    );
    this.showHistory();
  }

  async setMode(mode) {
    if (ASKED_FIRST.has(mode)) {
      const text = `Mode ${mode}: ${MODES[mode]}. The slices of cell ${this.name} share all PRBs, the GPU runs at its own clock, and nothing is learned until the mode is active again.`;
      if (!(await confirmed(`Set cell ${this.name} to ${mode}?`, text, `Set to ${mode}`))) return;
    }
    await command("SetMode", { cell_id: this.name, mode });
  }

  // Takes in a decision record; false where it is known already.
  add(record) {
    if (this.history.some((known) => known.time_ns === record.time_ns)) return false;
    this.history.push(record);
    this.history.sort((a, b) => a.time_ns - b.time_ns);
    this.history.splice(0, this.history.length - KEPT);
    return true;
  }

  show(state, cell) {
    const wrong = state.health.cells[this.name] ?? [];
    say(this.badge, wrong.length ? "degraded" : "healthy", wrong.length ? "warn" : "good");
    reasons(this.reasons, wrong);
    for (const button of this.modes) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === cell.mode));
      button.disabled = !reachable() || !state.may.includes("SetMode");
    }
    facts(this.facts, cellFacts(state, cell));
    this.showSlices(state, cell);
    this.showHosts(cell);
    this.showUes(cell);
  }

  showSlices(state, cell) {
    const record = cell.last;
    const names = record ? Object.keys(record.slices) : [];
    for (const [name, slice] of this.slices)
      if (!names.includes(name)) {
        slice.element.remove();
        this.slices.delete(name);
      }
    for (const name of names) {
      if (!this.slices.has(name)) {
        this.slices.set(name, new Slice(this.name, name));
        this.sliceList.append(this.slices.get(name).element);
        this.slices.get(name).chart(this.history);
      }
      this.slices.get(name).show(cell, record, record.slices[name], !reachable() || !state.may.includes("SwitchPolicy"));
    }
    this.waiting.hidden = Boolean(record);
    say(this.waiting, cell.connected ? "Waiting for the first decision." : "No gNB yet: the cell's slices show with the first decision.");
  }

  showHistory() {
    for (const slice of this.slices.values()) slice.chart(this.history);
    const rows = this.history.slice(-SHOWN_DECISIONS).reverse().flatMap(decisionRows);
    this.decisions.show(
      [
        { name: "Slot", kind: "row" }, { name: "Time", kind: "tight" }, { name: "Mode" }, { name: "Slice" }, { name: "QoS" },
        { name: "UL PRB", kind: "number" }, { name: "DL PRB", kind: "number" }, { name: "GPU MHz", kind: "number" },
        { name: "Worst user, of the budget", kind: "long" }, { name: "Why", kind: "long" },
      ],
      rows, "No decision yet.",
    );
  }

  showHosts(cell) {
    const names = [...new Set([...cell.hosts.map((host) => host.host), ...cell.clocks.map((clock) => clock.host)])];
    const rows = names.map((name) => {
      const heard = cell.hosts.find((host) => host.host === name);
      const clock = cell.clocks.find((of) => of.host === name);
      const told = clock?.ptp_state;
      const verdict = clock ? (clock.fault ? { text: clock.fault, kind: "bad" } : { text: "usable", kind: "good" }) : "never told of its clock";
      return [
        name,
        heard ? `${seconds(heard.age_s)} ago` : "none",
        told ? clock.ptp_state : "-",
        told ? `${three(clock.offset_ns / 1e3)} µs` : "-",
        told ? `${seconds(clock.age_s)} ago` : "-",
        verdict,
      ];
    });
    this.hosts.show(
      [
        { name: "Host", kind: "row" }, { name: "QoS stream heard" }, { name: "PTP state" }, { name: "Offset" }, { name: "Clock told" },
        { name: "Clock", kind: "whole" },
      ],
      rows, "No host has a QoS stream open, and none has told of its clock.",
    );
  }

  showUes(cell) {
    const ues = cell.ues.slice(0, SHOWN_UES).map(flat);
    say(this.uesTitle, cell.ues_total > ues.length ? `UEs of the last MAC report, the first ${ues.length} of ${cell.ues_total}` : "UEs of the last MAC report");
    const columns = [...new Set(ues.flatMap(Object.keys))].filter((name) => ues.some((ue) => ue[name] !== null));
    const rows = ues.map((ue) => columns.map((name) => ueText(name, ue[name])));
    this.ues.show(
      columns.map((name) => ({ name: ueColumn(name), kind: name === "ue_id" ? "row" : name === "slice" || name === "snssai" ? "" : "number" })),
      rows, "No UE has been reported.",
    );
  }
}

function cellFacts(state, cell) {
  const age = cell.report_age_s, left = cell.lease_left_s, most = cell.gpu_max_mhz;
  const edge = cell.edge_connected ? "connected" : "not connected";
  const gpu = cell.sm_mhz ? `${cell.sm_mhz}${most ? ` of ${most}` : ""} MHz` : "-";
  const saved = cell.savings;
  return [
    ["gNB", cell.connected ? `connected, ${cell.prb} PRB` : "not connected"],
    ["Last MAC report", cell.connected ? (age === null ? "none" : `${seconds(age)} ago`) : null],
    ["Lease of the quotas", cell.connected ? (left === null ? "no quotas in force" : `${seconds(left)} left`) : null],
    ["Edge agent", cell.edge_configured ? edge : "none configured"],
    ["GPU clock", cell.edge_configured ? gpu + (cell.gpu_age_s > STALE_S ? `, ${seconds(cell.gpu_age_s)} ago` : "") : null],
    ["QoS streams", String(cell.hosts.length)],
    ["Active flows", String(cell.active_flows)],
    ["UEs", String(cell.ues_total)],
    ["Control slots", String(cell.control_slots)],
    ["GPU power", cell.gpu_power_w === null ? null : `${three(cell.gpu_power_w)} W`],
    ["Power saved", saved ? `GPU ${percent(saved.gpu)}, base station ${percent(saved.bs)}, UE ${percent(saved.ue)}` : null, true],
  ];
}

function decisionRows(record) {
  return Object.entries(record.slices).map(([name, of]) => {
    const [ul, edge, dl] = ["ul", "edge", "dl"].map((lever) => inForce(record, name, lever)[0]);
    const measures = Object.entries(of.closed.measures).flatMap(([measure, m]) => {
      const w = worst(m);
      return w ? [`${words(measure)} ${withUnit(w[2] === null ? three(w[1]) : `${three(w[1])} of ${three(w[2])}`, m.unit)}`] : [];
    });
    return [
      String(record.control_slot),
      clockTime(atMs(record)),
      record.mode,
      name,
      met(of.closed.met),
      String(ul), String(dl), String(edge),
      measures.join(", ") || "-",
      decisionWhy(record, of),
    ];
  });
}

function decisionWhy(record, of) {
  const parts = [];
  if (record.ended) parts.push(`ended early: ${record.ended}`);
  const reasonsOf = Object.fromEntries(of.choices.filter((c) => !c.user).map((c) => [c.lever, c.why]));
  const chosen = grouped(reasonsOf);
  if (chosen) parts.push(chosen);
  for (const lever of ["ul", "dl"]) if (of.granted[lever][1]) parts.push(`${lever} granted ${of.granted[lever][0]}: ${of.granted[lever][1]}`);
  if (of.manual) parts.push(`set by hand: ${byHand(of.manual)}`);
  if (of.rescue) parts.push(`rescue: ${rescueText(of.rescue)}`);
  const unlearned = grouped(of.closed.unattributed);
  if (unlearned) parts.push(`nothing learned: ${unlearned}`);
  for (const [what, text] of Object.entries(of.failed ?? {})) parts.push(`${what} failed: ${text}`);
  return parts.join("; ") || "-";
}

// A UE's plain fields, those of its directions with the direction before them.
function flat(ue) {
  const out = {};
  for (const [name, value] of Object.entries(ue)) {
    if (Array.isArray(value)) continue;
    if (value !== null && typeof value === "object")
      for (const [inner, of] of Object.entries(value)) out[`${name}.${inner}`] = of;
    else out[name] = value;
  }
  return out;
}

function ueColumn(name) {
  const [direction, inner] = name.includes(".") ? name.split(".") : ["", name];
  return `${direction.toUpperCase()} ${COLUMNS[inner] ?? words(inner)}`.trim();
}

function ueText(name, value) {
  if (value === null || value === undefined) return "-";
  if (typeof value !== "number") return String(value) || "-";
  if (name.endsWith("_bytes")) return bytes(value);
  if (name.endsWith("bler")) return percent(value);
  if (name.endsWith("bps")) return value < 1e6 ? `${three(value / 1e3)} kbit/s` : `${three(value / 1e6)} Mbit/s`;
  if (name.endsWith("_db")) return `${value.toFixed(1)} dB`;
  return Number.isInteger(value) ? String(value) : three(value);
}

// ---- the controller --------------------------------------------------------------------------------------

const cells = new Map();
let state = null, lostAt = null, answeredAt = null, stream = null, streamClosedAt = 0, polling = false;

const reachable = () => lostAt === null;

function cellOf(name) {
  if (!cells.has(name)) {
    cells.set(name, new Cell(name));
    $("cells").append(cells.get(name).element);
  }
  return cells.get(name);
}

function show() {
  if (lostAt !== null) {
    say($("verdict"), `controller not reachable since ${clockTime(lostAt)}`, "bad");
    reasons($("reasons"), answeredAt === null ? [] : [`What is shown is of ${clockTime(answeredAt)}. The page goes on by itself once the controller answers.`]);
  } else if (state) {
    const n = state.health.reasons.length;
    say($("verdict"), n ? `degraded: ${n} ${n === 1 ? "reason" : "reasons"}` : "healthy", n ? "warn" : "good");
    const ofCells = new Set(Object.entries(state.health.cells).flatMap(([cell, texts]) => texts.map((text) => `cell ${cell}: ${text}`)));
    const readOnly = state.may.includes("SetMode") ? [] : ["Your certificate may look, not command."];
    reasons($("reasons"), [...state.health.reasons.filter((text) => !ofCells.has(text)), ...readOnly]);
  }
  if (!state) return;
  facts($("facts"), [
    ["Version", state.version],
    ["Control slot", `${state.control_slot_s} s, lease ${three(state.lease_s)} s`],
    ["Up for", duration(state.up_s)],
    ["Configuration hash", state.config_hash.slice(0, 12)],
    ["Run folder", state.run_dir || "not recorded", true],
    ["Configuration", state.config_path, true],
    ["Last reload refused", state.reload_error, true],
    ["Not in the record", state.store_lost ? `${state.store_lost} control slots and events` : null],
  ]);
  const names = state.cells.map((cell) => cell.cell_id);
  for (const [name, cell] of cells)
    if (!names.includes(name)) {
      cell.element.remove();
      cells.delete(name);
    }
  for (const cell of state.cells) {
    const of = cellOf(cell.cell_id);
    if (cell.last) take(cell.last);
    of.show(state, cell);
  }
}

const changed = new Set();

function take(record) {
  const cell = cellOf(record.cell);
  if (!cell.add(record)) return;
  if (!changed.size) requestAnimationFrame(() => {
    for (const of of changed) of.showHistory();
    changed.clear();
  });
  changed.add(cell);
}

async function poll() {
  if (polling) return;
  polling = true;
  try {
    const answer = await fetch("api/state", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!answer.ok) throw new Error(answer.statusText);
    state = await answer.json();
    answeredAt = Date.now();
    lostAt = null;
  } catch {
    lostAt ??= Date.now();
  } finally {
    polling = false;
  }
  show();
  if (reachable() && stream?.readyState === EventSource.CLOSED && Date.now() - streamClosedAt > REOPEN_MS) open();
}

function open() {
  stream?.close();
  stream = new EventSource("api/decisions");
  stream.onmessage = (event) => take(JSON.parse(event.data));
  stream.onerror = () => {
    streamClosedAt = Date.now();
    if (reachable()) poll();
  };
}

async function run() {
  for (;;) {
    if (!document.hidden || !state) await poll();
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

document.addEventListener("visibilitychange", () => document.hidden || poll());
open();
run();
