// What is in sight, on the canvas, and the whole run on the map.

function show() {
  if (wanted) return;
  wanted = true;
  requestAnimationFrame(() => { wanted = false; draw(); });
}

function draw() {
  const gap = layOut(), ctx = canvas.getContext("2d");
  const [first, end] = [firstAt(view.from), firstAt(view.to + 1)];
  let inSight = 0;
  for (let i = first; i < end; i++) inSight += isShown(i);
  const isClose = inSight <= CLOSE;
  ctx.clearRect(0, 0, width, height);
  ctx.font = "12px system-ui, sans-serif";
  ctx.textBaseline = "middle";
  ctx.save();
  ctx.beginPath();
  ctx.rect(0, HEAD, width, height - HEAD);
  ctx.clip();
  drawGrid(ctx);
  drawCrashes(ctx);
  // From afar the lines tell more than the arrows between them.
  if (isClose) columns.forEach((process) => drawLine(ctx, process, 0));
  shown.arrows = drawArrows(ctx, first, end, isClose, inSight);
  if (!isClose) columns.forEach((process) => drawLine(ctx, process, 0.8));
  shown.dots = drawDots(ctx, first, end, isClose);
  drawLabels(ctx, first, end, gap);
  drawHover(ctx);
  ctx.restore();
  drawHeads(ctx, gap);
  if (drag && drag.moved) {
    ctx.fillStyle = colours.select;
    ctx.fillRect(LEFT - 10, Math.min(drag.y, drag.now), width, Math.abs(drag.now - drag.y));
  }
  drawMap();
  by("drawn").textContent = `${shown.dots} events and ${shown.arrows} arrows in sight, ` +
    `${seconds(Math.max(view.from, 0))} to ${seconds(Math.min(view.to, data.end))}`;
  document.body.dataset.ready = "yes";
  saveHash();
}

function drawGrid(ctx) {
  const span = view.to - view.from;
  const rough = span / Math.max((height - HEAD) / 60, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const digits = Math.min(Math.max(6 - Math.floor(Math.log10(step)), 0), 6);
  ctx.textAlign = "right";
  for (let time = Math.max(Math.ceil(view.from / step) * step, 0); time <= view.to && time <= data.end; time += step) {
    const y = Math.round(yOf(time)) + 0.5;
    ctx.strokeStyle = colours.rule;
    ctx.lineWidth = 1;
    ctx.beginPath(); ctx.moveTo(LEFT - 12, y); ctx.lineTo(width, y); ctx.stroke();
    ctx.fillStyle = colours.soft;
    if (y > HEAD + 6) ctx.fillText(seconds(time, digits), LEFT - 18, y);
  }
}

// A death is seen across the whole diagram.
function drawCrashes(ctx) {
  for (const moment of data.story) {
    if (moment.what !== "crash" || moment.time < view.from || moment.time > view.to) continue;
    const y = Math.round(yOf(moment.time)) + 0.5;
    ctx.strokeStyle = colours.down;
    ctx.globalAlpha = 0.35;
    ctx.lineWidth = 2;
    ctx.beginPath(); ctx.moveTo(LEFT - 12, y); ctx.lineTo(width, y); ctx.stroke();
    ctx.globalAlpha = 1;
  }
}

// `cover`: how much of the arrows behind it the band of a server that is down hides.
function drawLine(ctx, process, cover) {
  const x = xs[process];
  for (const [from, to, state] of data.processes[process].stretches) {
    if (to < view.from || from > view.to) continue;
    const [name, thick] = LINES[state] || ["line", data.processes[process].client ? 1 : 2];
    ctx.strokeStyle = colours[name];
    ctx.lineWidth = thick;
    if (state === "DOWN") {
      const top = Math.max(yOf(from), HEAD), tall = Math.max(Math.min(yOf(to), height) - top, 1);
      for (const [colour, alpha] of [[colours.back, cover], [colours.down, cover ? 0.3 : 0.18]]) {
        ctx.globalAlpha = alpha;
        ctx.fillStyle = colour;
        ctx.fillRect(x - 11, top, 22, tall);
      }
      ctx.globalAlpha = 1;
    }
    ctx.setLineDash({ DOWN: [1, 6], ASLEEP: [3, 5], ELECTION_IN_PROGRESS: [6, 3] }[state] || []);
    // What lasts shorter than a pixel is still seen.
    const [top, bottom] = [Math.max(yOf(from), HEAD), Math.min(Math.max(yOf(to), yOf(from) + 1), height)];
    ctx.beginPath(); ctx.moveTo(x, top); ctx.lineTo(x, bottom); ctx.stroke();
  }
  ctx.setLineDash([]);
}

const isFollowed = (i) => followed >= 0 && (E.about[i] || []).includes(followed);
const strength = (i) => (followed < 0 || isFollowed(i) ? 1 : 0.15);
const colourOf = (i) => (isFollowed(i) ? colours.follow : colours[sortOf[E.label[i]]]);

function* arrowsInSight(first, end) {
  const later = firstAt(view.to + LONG_US);
  for (let to = first; to < later; to++) {
    const from = causeOf[to];
    if (from >= 0 && E.time[from] <= view.to && E.time[to] - E.time[from] <= LONG_US) yield [from, to];
  }
  for (const [from, to] of longArrows) if (E.time[from] <= view.to && E.time[to] >= view.from) yield [from, to];
}

function drawArrows(ctx, first, end, isClose, inSight) {
  const seen = new Set(), n = data.processes.length, faint = Math.max(Math.min(2 * CLOSE / inSight, 0.4), 0.1);
  let count = 0;
  for (const [from, to] of arrowsInSight(first, end)) {
    if (!isShown(from) || !isShown(to)) continue;
    count++;
    const [p, q] = [E.process[from], E.process[to]], [y1, y2] = [yOf(E.time[from]), yOf(E.time[to])];
    if (!isClose && !isFollowed(from)) {
      const key = ((Math.round(y1 / 2) * n + p) * n + q) * 8 + E.label[from] % 8;
      if (seen.has(key)) continue;
      seen.add(key);
    }
    ctx.globalAlpha = strength(from) * strength(to) * (isClose ? 0.9 : faint);
    drawArrow(ctx, xs[p], y1, xs[q], y2, isFollowed(to) ? colourOf(from) : colours[sortOf[E.label[from]]], isClose);
  }
  if (isClose) for (let from = first; from < end; from++) {
    for (const process of isShown(from) ? lostOf.get(from) || [] : []) {
      if (hidesProcess[process]) continue;
      ctx.globalAlpha = strength(from);
      drawLost(ctx, xs[E.process[from]], yOf(E.time[from]), xs[process]);
    }
  }
  ctx.globalAlpha = 1;
  return count;
}

function drawArrow(ctx, x1, y1, x2, y2, colour, hasHead) {
  const length = Math.hypot(x2 - x1, y2 - y1);
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineWidth = 1.2;
  ctx.beginPath(); ctx.moveTo(x1, y1); ctx.lineTo(x2, y2); ctx.stroke();
  if (!hasHead || length < 16) return;
  const [dx, dy] = [(x2 - x1) / length, (y2 - y1) / length], [tx, ty] = [x2 - 3 * dx, y2 - 3 * dy];
  ctx.beginPath();
  ctx.moveTo(tx, ty);
  ctx.lineTo(tx - 8 * dx + 3 * dy, ty - 8 * dy - 3 * dx);
  ctx.lineTo(tx - 8 * dx - 3 * dy, ty - 8 * dy + 3 * dx);
  ctx.fill();
}

// A message that never arrived: a piece of an arrow, and a cross.
function drawLost(ctx, x1, y1, towards) {
  const step = Math.sign(towards - x1), x2 = x1 + step * Math.min(Math.abs(towards - x1) * 0.5, 60), y2 = y1 + 8;
  ctx.strokeStyle = colours.down;
  ctx.lineWidth = 1;
  ctx.setLineDash([4, 3]);
  ctx.beginPath(); ctx.moveTo(x1, y1); ctx.lineTo(x2, y2); ctx.stroke();
  ctx.setLineDash([]);
  drawCross(ctx, x2, y2, 3);
}

function drawCross(ctx, x, y, size) {
  ctx.beginPath();
  ctx.moveTo(x - size, y - size); ctx.lineTo(x + size, y + size);
  ctx.moveTo(x + size, y - size); ctx.lineTo(x - size, y + size);
  ctx.stroke();
}

function drawDots(ctx, first, end, isClose) {
  let count = 0;
  for (let i = first; i < end; i++) {
    if (!isShown(i)) continue;
    count++;
    const [x, y] = [xs[E.process[i]], yOf(E.time[i])];
    if (kind(i) === "crash") {
      ctx.strokeStyle = colours.down;
      ctx.lineWidth = 4;
      drawCross(ctx, x, y, 8);
      continue;
    }
    if (!isClose && !isFollowed(i)) continue;
    ctx.globalAlpha = strength(i);
    ctx.fillStyle = colourOf(i);
    if (kind(i) === "sync") ctx.fillRect(x - 5, y - 1, 10, 2);
    else if (kind(i) === "state") ctx.fillRect(x - 4, y - 4, 8, 8);
    else { ctx.beginPath(); ctx.arc(x, y, 3, 0, 7); ctx.fill(); }
  }
  ctx.globalAlpha = 1;
  return count;
}

// Labels where there is room: first what happened to servers, then messages. Two never meet.
function drawLabels(ctx, first, end, gap) {
  const rows = new Map();
  const isFree = (x, y, wide) => x >= LEFT - 8 && x + wide < width - 2 && y > HEAD + 6 && ![-1, 0, 1].some((row) =>
    (rows.get(Math.floor(y / 14) + row) || []).some((box) => Math.abs(box.y - y) < 13 && x < box.x + box.wide + 6 && box.x < x + wide + 6));
  const place = (i, text, colour, most, places) => {
    const fitted = fit(ctx, text, most);
    if (!fitted) return;
    const wide = ctx.measureText(fitted).width, [x, y] = [xs[E.process[i]], yOf(E.time[i])];
    const beside = kind(i) === "crash" ? 13 : 8;
    const free = places.map(([right, down]) => [right ? x + beside : x - beside - wide, y + down]).find(([x, y]) => isFree(x, y, wide));
    if (!free) return;
    const row = Math.floor(free[1] / 14);
    if (!rows.has(row)) rows.set(row, []);
    rows.get(row).push({ x: free[0], y: free[1], wide });
    ctx.textAlign = "left";
    ctx.lineWidth = 3;
    ctx.strokeStyle = colours.back;
    ctx.strokeText(fitted, ...free);
    ctx.fillStyle = colour;
    ctx.fillText(fitted, ...free);
  };
  const hits = [];
  for (let i = first; i < end; i++) if (isShown(i)) hits.push(i);
  const around = [[true, -8], [false, -8], [true, 9], [false, 9], [true, 23], [false, 23]];
  const important = hits.filter((i) => rank(i) < 4).sort((a, b) => rank(a) - rank(b) || a - b).slice(0, 2000);
  for (const i of important) {
    const strong = rank(i) < 3, colour = [colours.down, colours.leader, colours.election, colours.text][rank(i)];
    ctx.font = (strong ? "600 " : "") + "12px system-ui, sans-serif";
    place(i, titleOf(i, gap < NARROW), colour, strong ? 300 : Math.max(gap * 1.6 - 16, 100), strong ? around : around.slice(0, 1));
  }
  ctx.font = "11px system-ui, sans-serif";
  if (gap < 60 || hits.length > LABELS) return;
  for (const i of hits) {
    if (rank(i) < 4 || kind(i) === "receive" || (followed >= 0 && !isFollowed(i))) continue;
    place(i, kind(i) === "sync" ? "disk" : [label(i), E.say[i]].filter(Boolean).join(" "), colourOf(i), gap - 18, around.slice(0, 3));
  }
}

// How much an event matters: a death, a leader, an election, another change, the rest.
function rank(i) {
  if (kind(i) === "crash") return 0;
  if (kind(i) === "state" && E.say[i].startsWith("leads")) return 1;
  if (kind(i) === "state" && E.say[i].startsWith("stands")) return 2;
  return isOfState(i) ? 3 : 4;
}
const told = new Map(data.story.map((moment) => [`${moment.what} ${moment.process} ${moment.time}`, moment.text]));
const toldOf = (what, i) => told.get(`${what} ${E.process[i]} ${E.time[i]}`);
// Where lines are narrow, one label tells of all who stand at once, and only what an event begins with is said.
function titleOf(i, isNarrow) {
  if (rank(i) === 0) return toldOf("crash", i) || E.say[i];
  if (rank(i) === 2 && isNarrow) return toldOf("election", i) || "";
  if (rank(i) < 3) return E.say[i].split(";")[0];
  return isNarrow ? E.say[i].split(/;| as | in term /)[0] : E.say[i];
}

// As much of `text` as fits into `room` pixels; nothing when that is no word.
function fit(ctx, text, room) {
  if (ctx.measureText(text).width <= room) return text;
  let length = Math.floor(text.length * room / ctx.measureText(text).width);
  while (length > 2 && ctx.measureText(text.slice(0, length) + "…").width > room) length--;
  return length > 2 ? text.slice(0, length) + "…" : "";
}

function drawHeads(ctx, gap) {
  ctx.fillStyle = colours.back;
  ctx.fillRect(0, 0, width, HEAD);
  ctx.strokeStyle = colours.rule;
  ctx.lineWidth = 1;
  ctx.beginPath(); ctx.moveTo(0, HEAD - 0.5); ctx.lineTo(width, HEAD - 0.5); ctx.stroke();
  ctx.textAlign = "center";
  const font = (client) => `${client ? "" : "600 "}${gap < 40 ? 11 : 13}px system-ui, sans-serif`;
  const fits = columns.every((process) => {
    ctx.font = font(false);
    return ctx.measureText(data.processes[process].name).width < gap - 4;
  });
  columns.forEach((process, place) => {
    const { name, client } = data.processes[process];
    ctx.font = font(client);
    ctx.fillStyle = client ? colours.soft : colours.text;
    // Where they do not fit beside each other they stand in two rows.
    const y = fits ? HEAD / 2 : HEAD * (place % 2 ? 0.74 : 0.28);
    ctx.fillText(fit(ctx, name, fits ? gap - 4 : 2 * gap - 6), xs[process], y);
  });
}

function drawHover(ctx) {
  if (hover < 0 || !isShown(hover)) return;
  const linked = [hover, ...(arrowsOf.get(hover) || [])].concat(causeOf[hover] >= 0 ? [causeOf[hover]] : []);
  ctx.strokeStyle = colours.text;
  ctx.lineWidth = 1.5;
  for (const i of linked.filter(isShown)) { ctx.beginPath(); ctx.arc(xs[E.process[i]], yOf(E.time[i]), 6, 0, 7); ctx.stroke(); }
}

// The whole run at the right edge: who led when, who was down, and what is in sight.
function drawMap() {
  const ctx = map.getContext("2d"), y = (time) => 4 + time / Math.max(data.end, 1) * (height - 8);
  ctx.clearRect(0, 0, MAP, height);
  const servers = data.processes.filter((process) => !process.client), lane = (MAP - 12) / Math.max(servers.length, 1);
  servers.forEach((process, place) => {
    for (const [from, to, state] of process.stretches) {
      ctx.fillStyle = colours[(LINES[state] || ["rule"])[0]];
      ctx.fillRect(6 + lane * place, y(from), Math.max(lane - 1, 1), Math.max(y(to) - y(from), 1));
    }
  });
  for (const moment of data.story.filter((moment) => moment.what === "crash")) {
    ctx.fillStyle = colours.down;
    ctx.fillRect(0, y(moment.time) - 1, MAP, 2);
  }
  ctx.fillStyle = colours.select;
  ctx.strokeStyle = colours.text;
  ctx.lineWidth = 1;
  const [top, tall] = [y(Math.max(view.from, 0)), Math.max((view.to - view.from) / Math.max(data.end, 1) * (height - 8), 3)];
  ctx.fillRect(1, top, MAP - 2, tall);
  ctx.strokeRect(1.5, Math.round(top) + 0.5, MAP - 3, Math.round(tall));
}
