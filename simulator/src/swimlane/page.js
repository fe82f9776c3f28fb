"use strict";
// Draws what the data element holds. Text from the trace only ever becomes text nodes.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const SECOND = 1e9, LIST_MAX = 1000, TIP_MAX = 14, NAMES = 132, LABEL = 6.4, AXIS = 58;
const HEIGHTS = { scenario: 22, services: 22, node: 26, queue: 22, store: 16, page: 26, item: 15 };
// Shapes around 0,0, and how each is called; a look that comes earlier is drawn above later ones.
const LOOKS = {
  broken: ["M0-8 2-3 8-3 3 1 5 7 0 3-5 7-3 1-8-3-2-3Z", "promise broken"],
  fault: ["M0-6 5 0 0 6-5 0Z", "fault"],
  crash: ["M-4-4 4 4M4-4-4 4", "crash"],
  trouble: ["M0-5 5 4-5 4Z", "trouble"],
  moment: ["M-2-6H2V6H-2Z", "healed, redriven"],
  start: ["M-6-5 0 0-6 5", "process started"],
  lost: ["M-2-6H2V6H-2", "session lost"],
  session: ["M4-6H0V6H4", "session begins"],
  closed: ["M-4-6H0V6H-4", "session closed"],
  leave: ["M2-3H8V3H2Z", "process leaves"],
  late: ["M-4-4H4L0 4Z", "late request"],
  refused: ["M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0", "write refused"],
  call: ["M0-6V6", "call begins"],
  end: ["M0-6V6", "call ends"],
  received: ["M-3.5-3H3.5L0 3.5Z", "message received"],
  sent: ["M-3.5 3H3.5L0-3.5Z", "message sent"],
  state: ["M-1.5-5H1.5V5H-1.5Z", "page written"],
  write: ["M-2.2 0a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0-4.4 0", "row written"],
  note: ["M-2-2H2V2H-2Z", "other"],
  beat: ["M0-3V3", "heartbeat"],
};
const SPANS = [
  ["session", "session"], ["down", "down"], ["frozen", "frozen"], ["cut-link", "link cut"], ["heat", "hot pages"],
  ["drain", "draining"], ["leased", "page leased"], ["ready", "page ready"], ["waiting", "page waits"],
  ["settled", "page settled"], ["succeeded", "call succeeded"], ["failed", "call failed"], ["cut", "call cut off, dropped or endless"],
];
const broken = data.moments.find((moment) => moment.look === "broken");
const RANK = Object.fromEntries(Object.keys(LOOKS).map((name, rank) => [name, rank]));

const make = (name, attributes, text, inside) => {
  const svg = !["div", "span", "tr", "td", "option", "button"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  if (inside) inside.append(made);
  return made;
};
const seconds = (nanos, digits = 6) => (nanos / SECOND).toFixed(digits) + " s";
const short = (nanos) => {
  const s = nanos / SECOND;
  if (s >= 120) return +(s / 60).toFixed(1) + " min";
  return s >= 1 ? +s.toFixed(1) + " s" : +(s * 1000).toFixed(1) + " ms";
};
const line = (event) => `${seconds(event.at)}  ${event.who}  ${event.what}`;

// Time to pixels: an idle second is worth less than a busy one.
let zoom = 0, scale = null;
const QUIET = 2 * SECOND;
function measure() {
  const even = $("even").checked;
  const times = new Set([0, data.end]);
  for (const event of data.events) if (event.look !== "beat" || even) times.add(event.at);
  for (const span of data.spans) times.add(span.from).add(Math.min(span.to, data.end));
  const at = [...times].sort((a, b) => a - b);
  const x = [0];
  for (let i = 1; i < at.length; i++) {
    const gap = at[i] - at[i - 1];
    x.push(x[i - 1] + (even ? gap / SECOND : Math.log1p(gap / (0.012 * SECOND))));
  }
  const room = Math.max(400, $("picture").clientWidth - NAMES - 50);
  const all = x[x.length - 1] || 1;
  const natural = Math.min(Math.max(room, even ? all * 20 : all * 7), 30000);
  if (!zoom) zoom = 1;
  const factor = (zoom === "fit" ? room : natural * zoom) / all;
  const find = (list, value) => {
    let low = 0, high = list.length - 1;
    while (high - low > 1) { const mid = (low + high) >> 1; if (list[mid] <= value) low = mid; else high = mid; }
    return low;
  };
  const between = (from, to, value) => {
    const i = find(from, value), j = Math.min(i + 1, from.length - 1);
    const part = from[j] > from[i] ? (value - from[i]) / (from[j] - from[i]) : 0;
    return to[i] + Math.min(1, Math.max(0, part)) * (to[j] - to[i]);
  };
  const px = x.map((value) => 12 + value * factor);
  scale = {
    width: Math.ceil(px[px.length - 1] + 30), x: (t) => between(at, px, t), t: (p) => between(px, at, p),
    quiet: even ? [] : at.slice(1).map((to, i) => [at[i], to]).filter(([from, to]) => to - from >= QUIET),
  };
}

// What is chosen: an item's lanes are its own, its pages', and those of everything that is no page.
const item = (name) => name.replace(/e\d+$/, "").split("-").map(Number);
function chosen() {
  const text = $("text").value.trim().toLowerCase(), about = $("item").value;
  const wanted = about && item(about);
  const own = data.lanes.map((lane) => {
    if (!wanted || !["page", "item"].includes(lane.kind)) return true;
    const [part, number, index] = item(lane.name);
    return part === wanted[0] && number === wanted[1] && (index === undefined || wanted[2] === undefined || index === wanted[2]);
  });
  const pages = data.lanes.map((lane, i) => ["page", "item"].includes(lane.kind) && own[i]);
  const shown = data.events.filter((event) => (event.look !== "beat" || $("beats").checked)
    && (!wanted || event.look === "moment" || event.look === "broken" || event.lanes.some((i) => pages[i])));
  const hits = new Set(text ? shown.filter((event) => line(event).toLowerCase().includes(text)) : shown);
  return { own, shown, hits, text };
}

function draw() {
  measure();
  const { own, shown, hits, text } = chosen();
  const { x, width } = scale;
  const names = $("names"), lanes = [];
  names.replaceChildren();
  let y = 0;
  data.lanes.forEach((lane, i) => {
    if (!own[i]) return;
    const height = HEIGHTS[lane.kind], before = data.lanes[i - 1];
    const first = y > 0 && (lane.kind === "page" || (before && before.kind !== lane.kind && lane.kind !== "item"));
    lanes[i] = { y, height, first };
    make("div", { class: `${lane.kind}${first ? " first" : ""}`, style: `height:${height}px`, title: `${lane.kind} ${lane.name}` }, lane.name, names);
    y += height;
  });
  const svg = make("svg", { width, height: y, role: "img" });
  const hatch = make("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse" }, undefined, make("defs", {}, undefined, svg));
  make("path", { d: "M0 6 6 0" }, undefined, hatch);
  lanes.forEach((lane, i) => {
    if (data.lanes[i].kind === "item") make("rect", { class: "stripe", x: 0, y: lane.y, width, height: lane.height }, undefined, svg);
    if (lane.first) make("path", { class: "rule", d: `M0 ${lane.y + .5}H${width}` }, undefined, svg);
  });
  drawAxis(svg, y);
  drawSpans(svg, lanes, text);
  drawMarks(svg, lanes, shown, hits);
  for (const moment of data.moments) {
    const at = x(moment.at);
    make("path", { class: `moment-line ${moment.look}`, d: `M${at} 0V${y}` }, undefined, svg);
  }
  make("path", { class: "cursor", id: "cursor", d: "" }, undefined, svg);
  svg.addEventListener("mousemove", (event) => {
    const at = event.clientX - svg.getBoundingClientRect().left;
    $("cursor").setAttribute("d", `M${at} 0V${y}`);
  });
  $("lanes").replaceChildren(svg);
  list(shown, hits, text);
}

function drawAxis(svg, bottom) {
  const { x, t, width, quiet } = scale;
  const axis = make("svg", { width, height: AXIS });
  for (const [from, to] of quiet) {
    const left = x(from), wide = x(to) - left;
    make("rect", { class: "quiet", x: left, y: 0, width: wide, height: bottom }, undefined, svg);
    make("rect", { class: "quiet", x: left, y: AXIS - 16, width: wide, height: 16 }, undefined, axis);
    const name = short(to - from);
    if (wide > name.length * 6 + 4) make("text", { class: "quiet-name", x: left + wide / 2, y: AXIS - 5, "text-anchor": "middle" }, name, axis);
  }
  // Of the moments around an even distance, the roundest one gets the label.
  const units = [600, 300, 120, 60, 30, 20, 10, 5, 2, 1, .5, .2, .1, .05, .02, .01, .005, .002, .001, .0005, .0001].map((unit) => unit * SECOND);
  const ticks = [];
  let last = -100;
  for (let at = 40; at < width - 60; at += 6) {
    if (at - last < 84) continue;
    const [from, to] = [t(at), t(at + 30)];
    const unit = units.find((unit) => Math.floor(to / unit) > Math.floor(from / unit));
    if (!unit) continue;
    const time = Math.floor(to / unit) * unit, place = x(time);
    if (place - last < 70) continue;
    const digits = Math.max(0, -Math.floor(Math.log10(unit / SECOND) + 1e-9));
    make("path", { class: "tick", d: `M${place} ${AXIS - 30}V${AXIS}` }, undefined, axis);
    make("path", { class: "tick", d: `M${place} 0V${bottom}` }, undefined, svg);
    ticks.push([place, `${(time / SECOND).toFixed(digits)} s`]);
    last = place;
  }
  // Names of moments stand in two rows; one that fits in neither is told by its line's lane.
  const rows = [[], []];
  const rank = (moment) => (moment.look === "broken" ? 0 : 1);
  for (const moment of [...data.moments].sort((a, b) => rank(a) - rank(b) || a.at - b.at)) {
    const name = rank(moment) ? moment.text : `BROKEN ${moment.text.split(":")[0]}`;
    const at = x(moment.at), wide = name.length * 7 + 8, turned = at + wide > width;
    const [from, to] = turned ? [at - wide, at] : [at, at + wide];
    make("path", { class: `moment-line ${moment.look}`, d: `M${at} 0V${AXIS}` }, undefined, axis);
    const row = rows.findIndex((row) => row.every((taken) => taken[1] <= from || to <= taken[0]));
    if (row < 0) continue;
    rows[row].push([from, to]);
    make("text", { class: `moment-name ${moment.look}`, x: turned ? at - 4 : at + 4, y: 11 + 12 * row, "text-anchor": turned ? "end" : "start" }, name, axis);
  }
  for (const [place, name] of ticks) make("text", { x: place + 3, y: AXIS - 20 }, name, axis);
  $("axis").replaceChildren(make("div", {}, "virtual time"), axis);
  $("scale").textContent = $("even").checked
    ? "Time runs evenly from left to right."
    : "Time runs from left to right: stretched where much happens, squeezed where little does (logarithmically between two events). Hatched: nothing but heartbeats for so long.";
}

function drawSpans(svg, lanes, text) {
  const { x } = scale;
  const rows = new Map();
  for (const span of data.spans) {
    const lane = lanes[span.lane];
    if (!lane) continue;
    // Calls of one item that overlap stand one above the other: that must not be hidden.
    const kind = data.lanes[span.lane].kind;
    if (kind === "item") {
      const taken = rows.get(span.lane) || rows.set(span.lane, []).get(span.lane);
      const others = taken.filter((other) => other.from < span.to && span.from < other.to);
      span.row = others.some((other) => other.row === 0) ? 1 : 0;
      span.half = others.length > 0;
      for (const other of others) other.half = true;
      taken.push(span);
    }
  }
  for (const span of data.spans) {
    const lane = lanes[span.lane];
    if (!lane) continue;
    const kind = data.lanes[span.lane].kind, left = x(span.from);
    const wide = Math.max(kind === "item" ? 3 : 1, x(Math.min(span.to, data.end)) - left);
    const thin = span.look === "settled" || span.look === "ready";
    let [top, height] = [lane.y + 2, lane.height - 4];
    if (kind === "page") [top, height] = [lane.y + 2, 14];
    if (thin) [top, height] = [top + height / 2 - 3, 6];
    if (span.half) [top, height] = [top + span.row * height / 2, height / 2 - .5];
    const length = short(span.to - span.from);
    const off = text && !`${span.text} ${span.label}`.toLowerCase().includes(text) ? " off" : "";
    const bar = make("rect", { class: `span ${span.look}${off}`, x: left, y: top, width: wide, height, rx: 2 }, undefined, svg);
    bar.about = [`${seconds(span.from)} … ${seconds(span.to)}  (${length})`, span.label && kind !== "item" ? `${span.label}: ${span.text}` : span.text];
    if (thin || span.half) continue;
    const label = [span.label, span.label.split(" ").pop()].find((label) => label && wide > label.length * LABEL + 10);
    if (label) make("text", { x: left + (kind === "page" ? 4 : 8), y: top + height / 2 + 3.6, class: off }, label, svg);
  }
}

function drawMarks(svg, lanes, shown, hits) {
  // Marks that would cover each other are one, and tell of all of them.
  const groups = new Map();
  for (const event of shown) for (const i of event.lanes) {
    if (!lanes[i]) continue;
    if (data.lanes[i].kind === "item" && ["call", "end"].includes(event.look)) continue;
    const key = `${i} ${event.look} ${Math.round(scale.x(event.at) / 4)}`;
    const group = groups.get(key) || groups.set(key, { i, look: event.look, events: [] }).get(key);
    group.events.push(event);
  }
  const sorted = [...groups.values()].sort((a, b) => RANK[b.look] - RANK[a.look]);
  const named = [];
  for (const { i, look, events } of sorted) {
    const off = events.some((event) => hits.has(event)) ? "" : " off";
    const at = scale.x(events[0].at), lane = lanes[i];
    const kind = data.lanes[i].kind, middle = lane.y + (kind === "page" ? 20 : lane.height / 2);
    const small = ["item", "store", "page"].includes(kind) ? " scale(.8)" : "";
    const mark = make("path", { class: `mark ${look}${off}`, d: LOOKS[look][0], transform: `translate(${at.toFixed(1)} ${middle})${small}` }, undefined, svg);
    // What the scenario itself does is named, as far as there is room; a pause's bar says so itself.
    const word = kind === "scenario" && look === "trouble" && events[0].what.match(/^(\w+) of (\S+) for/);
    if (word && word[1] !== "Pause") named.push([at, middle, word[1].toLowerCase() + (word[1] === "Heat" ? "" : ` ${word[2]}`)]);
    mark.about = events.slice(0, TIP_MAX).map(line);
    if (events.length > TIP_MAX) mark.about.push(`… and ${events.length - TIP_MAX} more`);
  }
  named.sort((a, b) => a[0] - b[0]).forEach(([at, middle, name], i) => {
    const wide = name.length * LABEL + 14;
    if (named.length === i + 1 || named[i + 1][0] - at > wide) make("text", { x: at + 8, y: middle + 3.6 }, name, svg);
  });
}

function list(shown, hits, text) {
  const body = $("list").tBodies[0];
  body.replaceChildren();
  const matching = shown.filter((event) => hits.has(event));
  // Of too many, those before the promise broke say most.
  const last = broken ? matching.filter((event) => event.at <= broken.at).length : 0;
  const first = Math.max(0, Math.min(last + 20, matching.length) - LIST_MAX);
  for (const event of matching.slice(first, first + LIST_MAX)) {
    const row = make("tr", { class: event.look, tabindex: 0 }, undefined, body);
    make("td", {}, seconds(event.at), row);
    make("td", {}, event.who, row);
    make("td", {}, event.what, row);
    row.addEventListener("click", () => goTo(event.at));
  }
  const beats = data.events.length - data.events.filter((event) => event.look !== "beat").length;
  const more = [`${Math.min(matching.length, LIST_MAX)} of ${matching.length} events are listed`];
  if (matching.length > LIST_MAX) more[0] += `; ${first} before them and ${matching.length - LIST_MAX - first} after them are left out: filter to see them`;
  if (beats && !$("beats").checked) more.push(`${beats} heartbeats are hidden`);
  if (data.leftOut) more.push(`${data.leftOut} events of the trace are not in this page (heartbeats and plain writes first)`);
  $("count").textContent = more.join("; ") + ".";
  $("found").textContent = text || $("item").value ? `${matching.length} events match` : "";
}

function goTo(time, stays) {
  const picture = $("picture"), at = scale.x(time);
  picture.scrollTo({ left: at - (picture.clientWidth - NAMES) / 2 });
  $("cursor").setAttribute("d", `M${at} 0V99999`);
  const { top, bottom } = picture.getBoundingClientRect();
  if (!stays && (bottom < 200 || top > innerHeight - 200)) picture.scrollIntoView({ block: "start" });
}

const tip = $("tip");
function tell(about, event, kept) {
  tip.replaceChildren(...about.map((text) => make("div", {}, text)));
  tip.hidden = false;
  tip.className = kept ? "kept" : "";
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${event.clientY + 16 + height > innerHeight ? Math.max(4, event.clientY - height - 12) : event.clientY + 16}px`;
}
$("lanes").addEventListener("mouseover", (event) => { if (tip.className !== "kept") { if (event.target.about) tell(event.target.about, event); else tip.hidden = true; } });
$("lanes").addEventListener("mouseleave", () => { if (tip.className !== "kept") tip.hidden = true; });
$("lanes").addEventListener("click", (event) => { if (event.target.about) tell(event.target.about, event, true); else { tip.hidden = true; tip.className = ""; } });
addEventListener("keydown", (event) => { if (event.key === "Escape") { tip.hidden = true; tip.className = ""; } });

for (const lane of data.lanes) if (["page", "item"].includes(lane.kind)) make("option", { value: lane.name }, `${lane.kind} ${lane.name}`, $("item"));
const legend = $("legend");
const seen = new Set(data.events.map((event) => event.look)), barred = new Set(data.spans.map((span) => span.look));
for (const [look, [shape, name]] of Object.entries(LOOKS)) {
  if (!seen.has(look) || look === "end") continue;
  const entry = make("span", {}, undefined, legend);
  make("path", { class: `mark ${look}`, d: shape, transform: "translate(8 8)" }, undefined, make("svg", { width: 16, height: 16 }, undefined, entry));
  entry.append(look === "call" ? "call begins, ends" : name);
}
for (const [look, name] of SPANS) {
  if (!barred.has(look)) continue;
  const entry = make("span", {}, undefined, legend);
  make("rect", { class: `span ${look}`, y: 3, width: 16, height: 10, rx: 2 }, undefined, make("svg", { width: 16, height: 16 }, undefined, entry));
  entry.append(name);
}
if (broken) {
  const pin = make("button", { id: "pin", type: "button" }, `BROKEN ${broken.text} — at ${seconds(broken.at, 3)}`);
  pin.addEventListener("click", () => goTo(broken.at));
  document.querySelector("header").after(pin);
}
$("tools").addEventListener("submit", (event) => event.preventDefault());
let wait = 0;
$("text").addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(draw, 150); });
for (const id of ["item", "beats", "even"]) $(id).addEventListener("change", draw);
const resize = (factor) => () => {
  const picture = $("picture"), middle = scale.t(picture.scrollLeft + (picture.clientWidth - NAMES) / 2);
  if (!factor) zoom = "fit"; else { if (zoom === "fit") zoom = 1; zoom = Math.min(16, Math.max(.1, zoom * factor)); }
  draw();
  goTo(middle, true);
};
$("in").addEventListener("click", resize(1.6));
$("out").addEventListener("click", resize(1 / 1.6));
$("fit").addEventListener("click", resize(0));
// What follows `#` is the text to look for, so that a page can be handed on with its question.
$("text").value = decodeURIComponent(location.hash.slice(1));
addEventListener("resize", () => { clearTimeout(wait); wait = setTimeout(draw, 200); });
draw();
if (broken) goTo(broken.at, true);
