// The hand: hovering, following, panels, the address, keys; and the beginning of everything.

// ---------------------------------------------------------------- hovering

function nearest(x, y) {
  const around = 9 / (height - HEAD - FOOT) * (view.to - view.from);
  let best = -1, least = 81;
  for (let i = firstAt(timeAt(y) - around), end = firstAt(timeAt(y) + around); i < end; i++) {
    if (!isShown(i)) continue;
    const distance = (xs[E.process[i]] - x) ** 2 + (yOf(E.time[i]) - y) ** 2;
    if (distance < least) [best, least] = [i, distance];
  }
  return best >= 0 ? best : nearestArrow(x, y);
}

// The event that an arrow under the pointer begins with.
function nearestArrow(x, y) {
  const [first, end] = [firstAt(view.from), firstAt(view.to + 1)];
  if (end - first > 10 * CLOSE) return -1;
  for (const [from, to] of arrowsInSight(first, end)) {
    if (!isShown(from) || !isShown(to)) continue;
    const [x1, y1, x2, y2] = [xs[E.process[from]], yOf(E.time[from]), xs[E.process[to]], yOf(E.time[to])];
    const square = (x2 - x1) ** 2 + (y2 - y1) ** 2;
    const part = square ? Math.max(0, Math.min(1, ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / square)) : 0;
    if ((x1 + part * (x2 - x1) - x) ** 2 + (y1 + part * (y2 - y1) - y) ** 2 < 9) return from;
  }
  return -1;
}

function setHover(index, x, y) {
  hover = index;
  tip.hidden = hover < 0;
  if (hover >= 0) {
    tip.replaceChildren(...describe(hover));
    const [left, top] = [x ?? xs[E.process[hover]], y ?? yOf(E.time[hover])];
    tip.style.left = Math.max(4, Math.min(left + 14, width - tip.offsetWidth - 8)) + "px";
    tip.style.top = Math.max(4, Math.min(top + 14, height - tip.offsetHeight - 8)) + "px";
  }
  show();
}

function describe(i) {
  const part = (tag, text) => { const element = document.createElement(tag); element.textContent = text; return element; };
  const parts = [part("b", `${data.processes[E.process[i]].name} ${verb(i)}`)];
  if (E.say[i]) parts.push(part("div", E.say[i]));
  if (E.details[i]) parts.push(part("span", E.details[i]));
  const cause = causeOf[i];
  const took = cause >= 0 ? `, ${((E.time[i] - E.time[cause]) / 1000).toFixed(3)} ms on the way` : "";
  parts.push(part("span", `at ${seconds(E.time[i], 6)}${took}`));
  parts.push(part("span", `clock ${clockText(i)}`));
  if (E.about[i]) parts.push(part("span", `message ${E.about[i].slice(0, 5).map((key) => data.keys[key]).join(", ")}: click to follow`));
  return parts;
}

function verb(i) {
  const others = E.others[i];
  const to = others && ` to ${others}`, from = others && ` from ${others}`;
  const verbs = { send: `sends ${label(i)}${to}`, receive: `receives ${label(i)}${from}`, deliver: `shows ${label(i)}${to}`,
    ack: `acknowledges${to}`, timer: "timer", sync: "disk", state: "changes" };
  return verbs[kind(i)] || kind(i);
}

// The trace's own vector clock, computed for all events when the first one is asked for.
let clocks = null;
function clockText(i) {
  const n = data.processes.length;
  if (!clocks) {
    clocks = new Int32Array(COUNT * n);
    const last = new Int32Array(n).fill(-1);
    for (let at = 0; at < COUNT; at++) {
      const p = E.process[at], before = [last[p], causeOf[at]].filter((index) => index >= 0);
      for (const index of before) for (let k = 0; k < n; k++) clocks[at * n + k] = Math.max(clocks[at * n + k], clocks[index * n + k]);
      clocks[at * n + p]++;
      last[p] = at;
    }
  }
  const entries = data.processes.map((process, k) => [process.name, clocks[i * n + k]]).filter(([, count]) => count > 0);
  return "{" + entries.map(([name, count]) => `${name}:${count}`).join(" ") + "}";
}

// ---------------------------------------------------------------- following

function follow(key) {
  followed = key;
  by("followed").hidden = key < 0;
  by("followed-steps").replaceChildren();
  if (key >= 0) {
    const dots = dotsOfKey[key], begin = E.time[dots[0]];
    const shownTo = dots.filter((i) => label(i) === "CHAT" && kind(i) === "receive" && data.processes[E.process[i]].client);
    const acked = dots.find((i) => label(i) === "ACK" && data.processes[E.process[i]].client);
    const sums = [data.keys[key], `${dots.length} events`];
    if (shownTo.length) sums.push(`last delivery after ${((E.time[shownTo.at(-1)] - begin) / 1000).toFixed(1)} ms`);
    if (acked !== undefined) sums.push(`acknowledged after ${((E.time[acked] - begin) / 1000).toFixed(1)} ms`);
    by("followed-sum").textContent = sums.join(", ");
    for (const i of dots.slice(0, 300)) {
      by("followed-steps").append(step(`+${((E.time[i] - begin) / 1000).toFixed(1)} ms`,
        `${data.processes[E.process[i]].name} ${verb(i)}`, () => { bringIntoSight(i); setHover(i); }));
    }
  }
  show();
}

function followEvent(i) {
  const keys = i >= 0 && E.about[i];
  if (!keys) return;
  const key = keys[(keys.indexOf(followed) + 1) % keys.length];
  follow(key);
  const dots = dotsOfKey[key], [begin, end] = [E.time[dots[0]], E.time[dots.at(-1)]];
  if (begin < view.from || end > view.to) leap(begin - (end - begin) * 0.1 - 500, end + (end - begin) * 0.1 + 500);
}

function step(when, text, act) {
  const item = document.createElement("li"), button = document.createElement("button"), time = document.createElement("span");
  time.className = "time";
  time.textContent = when + " ";
  button.append(time, text);
  button.addEventListener("click", act);
  item.append(button);
  return item;
}

function bringIntoSight(i) {
  if (E.time[i] >= view.from && E.time[i] <= view.to) return;
  const half = (view.to - view.from) / 2;
  setView(E.time[i] - half, E.time[i] + half);
}

// ---------------------------------------------------------------- the panels

function fillPanels() {
  by("title").textContent = data.title;
  const servers = data.processes.filter((process) => !process.client).length;
  const since = data.start_us > 1e15 ? `, from ${new Date(data.start_us / 1000).toISOString().replace("T", " ").slice(0, 23)} UTC` : "";
  by("facts").textContent = `${servers} servers, ${data.processes.length - servers} clients, ${COUNT} events in ${seconds(data.end, 1)}${since}`;
  for (const note of data.notes) {
    const p = document.createElement("p");
    p.textContent = note;
    by("notes").append(p);
  }
  for (const moment of data.story.slice(0, 1000)) {
    const item = step(seconds(moment.time), moment.text, () => {
      const half = Math.min(400000, data.end / 2);
      leap(moment.time - half / 2, moment.time + half);
    });
    item.firstChild.classList.add(moment.what);
    by("story").append(item);
  }
  by("story-part").hidden = data.story.length === 0;
  const counts = data.labels.map(() => 0);
  for (const index of E.label) counts[index]++;
  const order = data.labels.map((_, i) => i).sort((a, b) => (data.labels[a] < data.labels[b] ? -1 : 1));
  for (const i of order) addCheck("filter", data.labels[i], sortOf[i], counts[i], hiddenLabels, data.labels[i]);
  data.processes.forEach((process, i) => addCheck("processes", process.name, null, null, hiddenProcesses, i));
}

function addCheck(panel, text, sort, count, hidden, key) {
  const line = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox";
  box.checked = !hidden.has(key);
  box.dataset.key = key;
  box.addEventListener("change", () => { if (box.checked) hidden.delete(key); else hidden.add(key); applyFilter(); });
  line.append(box);
  if (sort) {
    const mark = document.createElement("span");
    mark.className = "swatch";
    mark.dataset.sort = sort;
    line.append(mark);
  }
  line.append(text);
  if (count !== null) {
    const number = document.createElement("span");
    number.className = "count";
    number.textContent = count;
    line.append(number);
  }
  by(panel).append(line);
}

function applyFilter() {
  data.labels.forEach((name, i) => { hidesLabel[i] = hiddenLabels.has(name); });
  data.processes.forEach((_, i) => { hidesProcess[i] = hiddenProcesses.has(i); });
  for (const box of by("filter").querySelectorAll("input")) box.checked = !hiddenLabels.has(box.dataset.key);
  show();
}
function hideOnly(names) {
  hiddenLabels.clear();
  for (const name of names) hiddenLabels.add(name);
  applyFilter();
}

// ---------------------------------------------------------------- the address: #from=1.5&to=2&filter=CHAT&follow=alice/3&hover=12

let isRead = false;
function readHash() {
  isRead = true;
  const words = new URLSearchParams(location.hash.slice(1)), number = (name) => Number.parseFloat(words.get(name));
  if (words.has("filter")) {
    const kept = words.get("filter").split(",");
    hideOnly(data.labels.filter((name) => !kept.includes(name)));
  } else {
    hideOnly(words.has("hide") ? words.get("hide").split(",") : data.hidden);
  }
  const [from, to] = [number("from"), number("to")];
  setView(Number.isNaN(from) ? -data.end * 0.01 : from * 1e6, Number.isNaN(to) ? data.end * 1.01 : to * 1e6);
  follow(data.keys.indexOf(words.get("follow")));
  layOut();
  const index = number("hover");
  if (index >= 0 && index < COUNT) { bringIntoSight(index); setHover(index); }
  const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(words.get("theme") || (dark ? "dark" : "light"));
}
function saveHash() {
  if (!isRead) return;
  const words = new URLSearchParams();
  if (view.to - view.from < data.end) { words.set("from", (view.from / 1e6).toFixed(6)); words.set("to", (view.to / 1e6).toFixed(6)); }
  if ([...hiddenLabels].sort().join() !== [...data.hidden].sort().join()) words.set("hide", [...hiddenLabels].join(","));
  if (followed >= 0) words.set("follow", data.keys[followed]);
  // A page from a file may not be allowed to.
  try { history.replaceState(null, "", "#" + words); } catch { /* then the address stays as it was */ }
}

// ---------------------------------------------------------------- hands

const spot = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
canvas.addEventListener("mousemove", (event) => {
  const [x, y] = spot(event);
  if (!drag) return setHover(nearest(x, y), x, y);
  drag.now = Math.min(Math.max(y, HEAD), height);
  drag.moved ||= Math.abs(drag.now - drag.y) > 5;
  show();
});
canvas.addEventListener("mouseleave", () => { if (!drag) setHover(-1); });
canvas.addEventListener("mousedown", (event) => { if (event.button === 0) { const y = spot(event)[1]; drag = { y, now: y, moved: false }; } });
window.addEventListener("mouseup", (event) => {
  if (!drag) return;
  const { y, now, moved } = drag;
  drag = null;
  if (moved) leap(timeAt(Math.min(y, now)), timeAt(Math.max(y, now)));
  else if (event.target === canvas) followEvent(nearest(...spot(event)));
});
canvas.addEventListener("dblclick", () => back());
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (event.ctrlKey || event.metaKey) zoom(1.0015 ** event.deltaY, spot(event)[1]); else pan(event.deltaY / height * 0.6);
}, { passive: false });
const goTo = (event) => {
  const time = (event.clientY - map.getBoundingClientRect().top - 4) / (height - 8) * data.end, half = (view.to - view.from) / 2;
  setView(time - half, time + half);
};
map.addEventListener("mousedown", goTo);
map.addEventListener("mousemove", (event) => { if (event.buttons & 1) goTo(event); });

function back() {
  const span = past.pop();
  if (span) setView(...span); else zoom(3);
}
const all = () => leap(-data.end * 0.01, data.end * 1.01);
function nextEvent(by) {
  let i = hover < 0 ? (by > 0 ? firstAt(view.from) - 1 : firstAt(view.to)) : hover;
  do i += by; while (i >= 0 && i < COUNT && !isShown(i));
  if (i < 0 || i >= COUNT) return;
  bringIntoSight(i);
  layOut();
  setHover(i);
}
const otherTheme = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
function toggleBeats() {
  const hides = data.hidden.some((name) => hiddenLabels.has(name));
  for (const name of data.hidden) if (hides) hiddenLabels.delete(name); else hiddenLabels.add(name);
  applyFilter();
}
const keys = {
  ArrowDown: () => pan(0.1), ArrowUp: () => pan(-0.1), PageDown: () => pan(0.8), PageUp: () => pan(-0.8),
  "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1.6), 0: all, Backspace: back, n: () => nextEvent(1), p: () => nextEvent(-1),
  Home: () => setView(0, view.to - view.from), End: () => setView(data.end - view.to + view.from, data.end),
  f: () => followEvent(hover), Enter: () => followEvent(hover), Escape: () => { follow(-1); setHover(-1); }, h: toggleBeats, t: otherTheme,
  "?": () => by("keys").showModal(),
};
window.addEventListener("keydown", (event) => {
  const inPanel = event.target.closest("aside, dialog, header") && ["Enter", " ", "ArrowUp", "ArrowDown", "PageUp", "PageDown"].includes(event.key);
  if (event.ctrlKey || event.metaKey || event.altKey || inPanel || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
by("all").addEventListener("click", all);
by("closer").addEventListener("click", () => zoom(0.5));
by("farther").addEventListener("click", () => zoom(2));
by("theme").addEventListener("click", otherTheme);
by("help").addEventListener("click", () => by("keys").showModal());
by("unfollow").addEventListener("click", () => follow(-1));
by("none").addEventListener("click", () => hideOnly(data.labels));
by("every").addEventListener("click", () => hideOnly([]));
window.addEventListener("hashchange", readHash);

readColours();
// Who wrote nothing is in the way of those who did.
const wrote = new Set();
for (let i = 0; i < COUNT; i++) if (label(i) === "CHAT" && kind(i) === "send") wrote.add(E.process[i]);
let room = Math.max(20 - data.processes.filter((process) => !process.client).length, 4);
data.processes.forEach((process, i) => { if (process.client && !(wrote.has(i) && room-- > 0)) hiddenProcesses.add(i); });
fillPanels();
resize();
readHash();
new ResizeObserver(resize).observe(canvas.parentElement);
