"use strict";
// The diagram: time runs from top to bottom, each process is a line. Everything is drawn on one canvas, and only what is in
// sight; what changes goes through `show()`, which draws once a frame. Times are microseconds since the beginning.

const data = JSON.parse(document.getElementById("data").textContent);
const E = data.events;
const COUNT = E.time.length;
const by = (id) => document.getElementById(id);
const canvas = by("canvas"), map = by("map"), tip = by("tip");
const HEAD = 36, LEFT = 84, MAP = 72, FOOT = 14;
// With more events than this in sight only one arrow is drawn for each pair of lines and pixel, without heads and labels.
const CLOSE = 5000, LABELS = 500;
// Lines with less room than this between them, in pixels, get short labels.
const NARROW = 90;
// A message may be on its way for so long and still be found by looking a little past the view.
const LONG_US = 300000;

const view = { from: 0, to: Math.max(data.end, 1) };
const past = [];
const hiddenLabels = new Set(), hiddenProcesses = new Set();
let columns = [], xs = [], hover = -1, followed = -1, drag = null, wanted = false, shown = { dots: 0, arrows: 0 };

// ---------------------------------------------------------------- indices

const arrowsOf = new Map(), causeOf = new Int32Array(COUNT).fill(-1), longArrows = [];
for (let i = 0; i < data.arrows.length; i += 2) {
  const [from, to] = [data.arrows[i], data.arrows[i + 1]];
  causeOf[to] = from;
  if (!arrowsOf.has(from)) arrowsOf.set(from, []);
  arrowsOf.get(from).push(to);
  if (E.time[to] - E.time[from] > LONG_US) longArrows.push([from, to]);
}
const lostOf = new Map();
for (let i = 0; i < data.lost.length; i += 2) {
  if (!lostOf.has(data.lost[i])) lostOf.set(data.lost[i], []);
  lostOf.get(data.lost[i]).push(data.lost[i + 1]);
}
const dotsOfKey = data.keys.map(() => []);
for (const index in E.about) for (const key of E.about[index]) dotsOfKey[key].push(Number(index));

// The first event at `time` or later.
function firstAt(time) {
  let low = 0, high = COUNT;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (E.time[middle] < time) low = middle + 1; else high = middle;
  }
  return low;
}

const kind = (i) => data.kinds[E.kind[i]];
const label = (i) => data.labels[E.label[i]];
const isOfState = (i) => label(i) === "state" || label(i) === "life";
const hidesLabel = data.labels.map(() => false), hidesProcess = data.processes.map(() => false);
const isShown = (i) => !hidesLabel[E.label[i]] && !hidesProcess[E.process[i]];
const seconds = (us, digits = 3) => (us / 1e6).toFixed(digits) + " s";

// ---------------------------------------------------------------- colours

const SORTS = {
  chat: ["CHAT", "DELETE"], ack: ["ACK"], error: ["ERROR"],
  vote: ["ELECTION", "ELECTION_OK", "COORDINATOR", "REQUEST_VOTE", "PROMISE", "TIMEOUT_NOW"],
  order: ["SEQ_CHAT", "APPEND_ENTRIES", "SYNC", "INSTALL_SNAPSHOT", "CATCHUP_REQ", "MEMBERS", "METADATA_UPDATE"],
  beat: ["HEARTBEAT", "APPEND_ENTRIES (empty)", "timer"],
};
const sortOf = data.labels.map((name) => Object.keys(SORTS).find((sort) => SORTS[sort].includes(name)) || "other");
const LINES = { LEADER: ["leader", 5], ELECTION_IN_PROGRESS: ["election", 4], DOWN: ["down", 1.5], ASLEEP: ["asleep", 3] };
let colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["back", "text", "soft", "rule", "line", "leader", "election", "down", "asleep", "chat", "ack", "vote",
    "order", "beat", "error", "other", "follow", "select"]) colours[name] = style.getPropertyValue("--" + name).trim();
}
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  readColours();
  for (const mark of document.querySelectorAll(".swatch")) mark.style.background = colours[mark.dataset.sort];
  by("legend").replaceChildren();
  for (const [name, text] of [["line", "follows"], ["leader", "leads"], ["election", "stands for election"], ["asleep", "asleep"], ["down", "down"]]) {
    const line = document.createElement("i");
    line.style.borderColor = colours[name];
    if (name !== "line" && name !== "leader") line.style.borderTopStyle = "dashed";
    by("legend").append(line, text);
  }
  show();
}

// ---------------------------------------------------------------- geometry

let width = 0, height = 0;
// A canvas that changes its size loses its picture: it is drawn at once, not in the next frame.
function resize() {
  const main = canvas.parentElement, ratio = window.devicePixelRatio || 1;
  [width, height] = [Math.max(main.clientWidth - MAP, 50), Math.max(main.clientHeight, 50)];
  for (const [element, w] of [[canvas, width], [map, MAP]]) {
    [element.width, element.height] = [w * ratio, height * ratio];
    [element.style.width, element.style.height] = [w + "px", height + "px"];
    element.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
  }
  draw();
}
function layOut() {
  columns = data.processes.map((_, i) => i).filter((i) => !hiddenProcesses.has(i));
  // A little more room at the right, for the labels of the last line.
  const gap = (width - LEFT - 10) / Math.max(columns.length, 1);
  const start = LEFT + Math.min(gap * 0.35, 60);
  xs = data.processes.map(() => NaN);
  columns.forEach((process, place) => { xs[process] = start + gap * place; });
  return gap;
}
const yOf = (time) => HEAD + (time - view.from) / (view.to - view.from) * (height - HEAD - FOOT);
const timeAt = (y) => view.from + (y - HEAD) / (height - HEAD - FOOT) * (view.to - view.from);

function setView(from, to) {
  const span = Math.min(Math.max(to - from, 50), Math.max(data.end * 1.04, 1000));
  const low = -data.end * 0.02, high = data.end * 1.02 - span;
  view.from = Math.max(Math.min(from, high), low);
  view.to = view.from + span;
  show();
}
function leap(from, to) {
  past.push([view.from, view.to]);
  setView(from, to);
}
function zoom(factor, y = (HEAD + height) / 2) {
  const time = timeAt(y);
  setView(time - (time - view.from) * factor, time + (view.to - time) * factor);
}
const pan = (part) => { const span = view.to - view.from; setView(view.from + span * part, view.to + span * part); };
