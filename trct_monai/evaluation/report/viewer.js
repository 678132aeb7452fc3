"use strict";
// Volumes are (X, Y, Z) in RAS+ order, z fastest. Planes are shown as a radiologist hangs them: the patient's right on
// the left, head and anterior up; in a sagittal plane anterior on the left.

const head = JSON.parse(document.querySelector("script.evaluation").textContent);
const pages = [...document.querySelectorAll("script.case")];
// Windows by name, lowest and highest HU; the key is the place in the list.
const WINDOWS = [["lung", -1350, 150], ["soft tissue", -160, 240], ["bone", -500, 1300],
  ["full", ...head.summary.hu_window]];
const DIFFERENCE = 400; // HU at full colour, as in evaluate's pictures
const BAR = 100; // mm
// Axes of the volume that run along a plane's columns and rows, the axis that it cuts, and what stands at its sides.
const PLANES = {
  axial: { column: 0, row: 1, cut: 2, sides: ["R", "L", "A", "P"] },
  coronal: { column: 0, row: 2, cut: 1, sides: ["R", "L", "S", "I"] },
  sagittal: { column: 1, row: 2, cut: 0, sides: ["A", "P", "S", "I"] },
};
const NAMES = Object.keys(PLANES);
const COLUMNS = ["truth", "prediction", "difference"];
const state = { number: 0, position: [0, 0, 0], plane: "axial", window: 3, volumes: null, spacing: 1 };
const element = (id) => document.getElementById(id);

async function decode(page) {
  const packed = Uint8Array.from(atob(page.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = bytes.length / 2, along = page.shape[page.shape.length - 1];
  const values = new Float32Array(count);
  let sum = 0;
  for (let i = 0; i < count; i++) {
    if (i % along === 0) sum = 0;
    sum = (sum + bytes[i] + (bytes[count + i] << 8) - 128) & 0xffff;
    values[i] = page.offset + page.step * sum;
  }
  return { values, shape: page.shape };
}

function slice(volume, plane, index) {
  const { column, row, cut } = PLANES[plane], n = volume.shape, strides = [n[1] * n[2], n[2], 1];
  const start = index * strides[cut], rows = [];
  for (let r = n[row] - 1; r >= 0; r--) {
    const line = new Array(n[column]);
    for (let c = 0; c < n[column]; c++) {
      line[c] = volume.values[start + r * strides[row] + (n[column] - 1 - c) * strides[column]];
    }
    rows.push(line);
  }
  return rows;
}

function image(volume) {
  const [rows, columns] = volume.shape;
  return Array.from({ length: rows }, (_, r) => Array.from(volume.values.subarray(r * columns, (r + 1) * columns)));
}

function minus(a, b) {
  return a.map((line, r) => line.map((value, c) => value - b[r][c]));
}

function number(value) {
  if (value === "" || value === null || value === undefined) return "";
  const x = Number(value);
  if (Number.isNaN(x)) return String(value);
  if (Number.isInteger(x)) return String(x);
  if (Math.abs(x) < 0.001) return x.toExponential(1);
  return Math.abs(x) >= 100 ? x.toFixed(1) : Math.abs(x) >= 10 ? x.toFixed(2) : x.toFixed(3);
}

function table(titles, rows, caption) {
  const made = document.createElement("table");
  if (caption) made.createCaption().textContent = caption;
  const top = made.createTHead().insertRow();
  for (const title of titles) {
    const cell = document.createElement("th");
    cell.textContent = title;
    top.append(cell);
  }
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const value of row) line.insertCell().textContent = value;
  }
  return made;
}

function showSummary() {
  const { summary } = head, own = summary.metrics[summary.name] || {};
  document.title = `${summary.name}: evaluation`;
  element("title").textContent = `${summary.name}: ${head.num_cases} cases of section ${summary.section}`;
  const grid = summary.size ? `, compared at ${summary.size} voxels a side` : "";
  element("about").textContent =
    `${summary.tool}; predictions ${summary.predictions}; datalist ${summary.datalist}${grid}; ` +
    `HU window ${summary.hu_window.join(" to ")}. Means with 95 % bootstrap intervals over patients.` +
    (pages.length < head.num_cases ? ` This page holds the ${pages.length} worst cases only.` : "");
  for (const flag of summary.flags) {
    const banner = document.createElement("div");
    banner.className = "flag";
    banner.textContent = `${summary.name} ${flag.name}: ${flag.reason}`;
    element("flags").append(banner);
  }
  const estimate = (e) => (e ? `${number(e.mean)} [${number(e.low)}, ${number(e.high)}]` : "");
  const parts = { protocols: (name) => name.includes("."), probes: (name) => !name.includes(".") };
  for (const [caption, belongs] of Object.entries(parts)) {
    const names = Object.keys(own).filter(belongs);
    const methods = Object.keys(summary.metrics)
      .filter((method) => method === summary.name || names.some((name) => name in summary.metrics[method]));
    const rows = names.map((name) => [name, ...methods.map((method) => estimate(summary.metrics[method][name]))]);
    if (caption === "probes" && summary.skill) rows.unshift(["skill over the mean volume", estimate(summary.skill)]);
    element("scores").append(table([caption, ...methods], rows));
  }
  if (summary.conditioning) {
    const rows = Object.entries(summary.conditioning).map(([name, value]) => [name.replaceAll("_", " "), number(value)]);
    element("scores").append(table(["conditioning", ""], rows));
  }
  if (summary.detectability?.length) {
    const titles = Object.keys(summary.detectability[0]);
    element("scores").append(table(titles.map((title) => title.replaceAll("_", " ")),
      summary.detectability.map((row) => titles.map((title) => number(row[title]))), "planted spheres"));
  }
  if (head.leaderboard?.length) {
    const titles = Object.keys(head.leaderboard[0]).filter((title) => !/\.(low|high)$/.test(title));
    element("leaderboard").append(table(titles, head.leaderboard.map((row) => titles.map((title) => number(row[title])))));
    element("board").hidden = false;
  }
}

function showList() {
  const rows = head.cases.map((row) => [row.case_id, number(row[head.headline])]);
  const list = table(["case", "PSNR (dB)"], rows);
  list.tBodies[0].addEventListener("click", (event) => open(event.target.closest("tr").sectionRowIndex));
  element("list").append(list);
}

function showControls() {
  WINDOWS.forEach(([name, low, high], index) => {
    const button = document.createElement("button");
    button.textContent = `${index + 1} ${name}`;
    button.title = `${low} to ${high} HU`;
    button.addEventListener("click", () => choose(index));
    element("controls").append(button);
  });
}

const LAYOUT = { paper_bgcolor: "#101317", plot_bgcolor: "#000", font: { color: "#9aa4b2", size: 12 }, dragmode: false };
const CONFIG = { displayModeBar: false, responsive: true };
const ACCENT = "#ffb000";
const LETTERS = [{ x: 0.04, y: 0.55 }, { x: 0.96, y: 0.55 }, { x: 0.45, y: 0.96 }, { x: 0.45, y: 0.04 }]; // off the cross
// Too low is blue, too high is orange, no error is dark: told apart by every kind of colour vision.
const DIVERGING = [[0, "#b3dcff"], [0.25, "#3182bd"], [0.5, "#0a0a0a"], [0.75, "#c0640f"], [1, "#ffd9a0"]];
const axisName = (letter, index) => letter + (index ? index + 1 : "");

// A grid of pictures: traces and layout for Plotly, rows from the top. What stands at a picture's sides are the letters
// of its left, right, upper and lower edge.
function grid(pictures, rows, columns, titles, height) {
  const gap = 0.02, width = (1 - gap * (columns - 1)) / columns, tall = (1 - 2 * gap * (rows - 1)) / rows;
  const layout = { ...LAYOUT, height, margin: { l: 6, r: 6, t: 26, b: 6 }, annotations: [], shapes: [] };
  const traces = pictures.map((picture, index) => {
    const r = Math.floor(index / columns), c = index % columns, x = c * (width + gap), y = 1 - r * (tall + 2 * gap);
    const plain = { visible: false, fixedrange: true };
    layout[axisName("xaxis", index)] =
      { ...plain, domain: [x, x + width], anchor: axisName("y", index), constrain: "domain" };
    layout[axisName("yaxis", index)] = { ...plain, domain: [y - tall, y], anchor: axisName("x", index),
      autorange: "reversed", scaleanchor: axisName("x", index), constrain: "domain" };
    if (r === 0) {
      layout.annotations.push({ text: titles[c], x: x + width / 2, xanchor: "center", y: 1, yanchor: "bottom",
        showarrow: false, xref: "paper", yref: "paper" });
    }
    const { sides, ...trace } = picture;
    sides.forEach((letter, side) => layout.annotations.push({ text: letter, showarrow: false, ...LETTERS[side],
      xref: `${axisName("x", index)} domain`, yref: `${axisName("y", index)} domain`, font: { color: ACCENT },
      bgcolor: "rgba(0, 0, 0, 0.45)", borderpad: 1 }));
    return { type: "heatmap", showscale: false, zsmooth: "best", hoverongaps: false,
      xaxis: axisName("x", index), yaxis: axisName("y", index), ...trace };
  });
  return [traces, layout];
}

function gray(z, low, high, sides, format) {
  const colorscale = [[0, "#000"], [1, "#fff"]];
  return { z, zmin: low, zmax: high, colorscale, sides, hovertemplate: `%{z:${format}}<extra></extra>` };
}

function diverging(z, high, sides, format) {
  return { ...gray(z, -high, high, sides, format), colorscale: DIVERGING };
}

// Row of the grid, then column: truth, prediction, difference.
function planePictures() {
  const [, low, high] = WINDOWS[state.window], format = ".0f";
  return NAMES.flatMap((plane) => {
    const { cut, sides } = PLANES[plane];
    const [truth, prediction] = state.volumes.map((volume) => slice(volume, plane, state.position[cut]));
    return [gray(truth, low, high, sides, format), gray(prediction, low, high, sides, format),
      diverging(minus(prediction, truth), DIFFERENCE, sides, format)];
  });
}

// Crosshairs, and a bar of 10 cm.
function lines() {
  const shapes = [], n = state.volumes[0].shape;
  NAMES.forEach((plane, row) => {
    const { column, row: axis } = PLANES[plane];
    const x = n[column] - 1 - state.position[column], y = n[axis] - 1 - state.position[axis];
    const line = { color: plane === state.plane ? ACCENT : "#66788a", width: 1, dash: "dot" };
    COLUMNS.forEach((_, c) => {
      const place = { type: "line", xref: axisName("x", 3 * row + c), yref: axisName("y", 3 * row + c) };
      shapes.push({ ...place, x0: x, x1: x, y0: -0.5, y1: n[axis] - 0.5, line });
      shapes.push({ ...place, x0: -0.5, x1: n[column] - 0.5, y0: y, y1: y, line });
      if (c === 0) {
        const left = 0.03 * n[column], down = 0.95 * n[axis], label = { text: "10 cm", textposition: "middle" };
        label.font = { color: ACCENT, size: 10 };
        shapes.push({ ...place, x0: left, x1: left + BAR / state.spacing, y0: down, y1: down,
          line: { color: ACCENT, width: 2 }, label: { ...label, yanchor: "bottom" } });
      }
    });
  });
  return shapes;
}

// As large as the column allows, and the three planes together no higher than the window.
function planesHeight() {
  return 32 + Math.max(420, Math.min(element("planes").clientWidth, window.innerHeight - 130));
}

let drawing = Promise.resolve(), waiting = false;

function paint() {
  waiting = false;
  const titles = ["truth", "prediction", `prediction - truth, \u00b1${DIFFERENCE} HU`];
  const [traces, layout] = grid(planePictures(), 3, 3, titles, planesHeight());
  layout.shapes = lines();
  drawing = Plotly.react("planes", traces, layout, CONFIG);
}

// However fast one scrolls, the planes are drawn once a frame.
function draw() {
  if (!state.volumes) return;
  const axis = PLANES[state.plane].cut, [name, low, high] = WINDOWS[state.window];
  element("slice").textContent = `${state.plane} slice ${state.position[axis] + 1} of ${state.volumes[0].shape[axis]}, ` +
    `${name} window, ${low} to ${high} HU`;
  [...element("controls").querySelectorAll("button")].forEach((b, i) => b.classList.toggle("chosen", i === state.window));
  if (!waiting) requestAnimationFrame(() => waiting && paint());
  waiting = true;
}

async function drawRadiographs(page) {
  const pictures = [], rows = page.views.length;
  for (const { radiograph, reprojection, sides } of page.views) {
    const [real, shadow] = (await Promise.all([radiograph, reprojection].map(decode))).map(image);
    const most = Math.max(...real.flat()), least = Math.min(...real.flat());
    pictures.push(gray(real, least, most, sides, ".2f"), gray(shadow, least, most, sides, ".2f"),
      diverging(minus(shadow, real), (most - least) / 5, sides, ".2f"));
  }
  element("radiographs").hidden = rows === 0;
  element("views").textContent = rows ? `Radiographs: ${page.views.map((view) => view.name).join(", ")}` : "";
  if (page.fitted) element("views").textContent += "; not line integrals: gain and offset of the projections are fitted";
  if (rows === 0 || page.case_id !== head.cases[state.number].case_id) return;
  const titles = ["radiograph", "projection of prediction", "difference, \u00b120 %"];
  const height = 32 + (rows * element("radiographs").clientWidth) / 3;
  const [traces, layout] = grid(pictures, rows, 3, titles, height);
  await Plotly.react("radiographs", traces, layout, CONFIG);
}

async function drawHistogram() {
  const low = head.summary.hu_window[0], high = head.summary.hu_window[1], bins = 100, width = (high - low) / bins;
  const traces = state.volumes.map((volume, which) => {
    const y = new Array(bins).fill(0);
    for (const value of volume.values) y[Math.min(bins - 1, Math.floor((value - low) / width))] += 1;
    return { type: "scatter", mode: "lines", line: { shape: "hvh", width: 1.5, color: ["#56b4e9", "#e69f00"][which] },
      name: COLUMNS[which], x: y.map((_, i) => low + (i + 0.5) * width), y: y.map((count) => count || null) };
  });
  const layout = { ...LAYOUT, height: 250, margin: { l: 50, r: 6, t: 10, b: 40 }, plot_bgcolor: "#101317",
    legend: { x: 1, xanchor: "right", y: 1 }, xaxis: { title: { text: "HU" }, gridcolor: "#333a44", fixedrange: true },
    yaxis: { type: "log", title: { text: "voxels" }, gridcolor: "#333a44", fixedrange: true } };
  await Plotly.react("histogram", traces, layout, CONFIG);
}

async function open(index) {
  const count = pages.length, number_ = ((index % count) + count) % count;
  state.number = number_;
  const page = JSON.parse(pages[number_].textContent);
  const volumes = await Promise.all([page.truth, page.prediction].map(decode));
  if (state.number !== number_) return; // another case was opened meanwhile
  const first = state.volumes === null || state.volumes[0].shape.join() !== volumes[0].shape.join();
  state.volumes = volumes;
  state.spacing = page.spacing;
  if (first) state.position = volumes[0].shape.map((n) => Math.floor(n / 2));
  const row = head.cases[number_], own = head.summary.metrics[head.summary.name] || {};
  const finer = page.stored_spacing < page.spacing ? `, averaged down from ${number(page.stored_spacing)} mm` : "";
  element("case").textContent = `${page.case_id}: ${number(row[head.headline])} dB (${number_ + 1} of ${count}), ` +
    `voxels of ${number(page.spacing)} mm${finer}`;
  [...element("list").querySelectorAll("tbody tr")].forEach((line, i) => {
    line.classList.toggle("shown", i === number_);
  });
  reveal(element("list"), element("list").querySelector("tr.shown"));
  const values = Object.keys(row).filter((name) => name !== "case_id")
    .map((name) => [name, number(row[name]), number(own[name]?.mean)]);
  element("values").replaceChildren(table(["", "this case", "mean"], values));
  draw();
  paint();
  await Promise.all([drawing, drawRadiographs(page), drawHistogram()]);
  document.body.dataset.shown = page.case_id; // for whoever waits until a case is drawn
}

// Scroll a list to one of its lines, and not the page with it.
function reveal(list, line) {
  const box = list.getBoundingClientRect(), { top, bottom } = line.getBoundingClientRect();
  list.scrollTop += Math.min(0, top - box.top - line.clientHeight) + Math.max(0, bottom - box.bottom);
}

function choose(index) {
  state.window = index;
  draw();
}

function scroll(plane, steps) {
  const axis = PLANES[plane].cut, last = state.volumes[0].shape[axis] - 1;
  state.plane = plane;
  state.position[axis] = Math.min(last, Math.max(0, state.position[axis] + steps));
  draw();
}

function planeAt(event) {
  const box = element("planes").getBoundingClientRect();
  return NAMES[Math.min(2, Math.max(0, Math.floor((3 * (event.clientY - box.top - 26)) / (box.height - 32))))];
}

document.addEventListener("keydown", (event) => {
  if (!state.volumes || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    ArrowUp: () => scroll(state.plane, 1), ArrowDown: () => scroll(state.plane, -1),
    PageUp: () => scroll(state.plane, 5), PageDown: () => scroll(state.plane, -5),
    ArrowRight: () => open(state.number + 1), ArrowLeft: () => open(state.number - 1),
    n: () => open(state.number + 1), p: () => open(state.number - 1),
    a: () => scroll("axial", 0), c: () => scroll("coronal", 0), s: () => scroll("sagittal", 0),
    1: () => choose(0), 2: () => choose(1), 3: () => choose(2), 4: () => choose(3),
  };
  if (!(event.key in actions)) return;
  event.preventDefault();
  actions[event.key]();
});

// A notch of a wheel is one slice; a touchpad sends many small movements, which add up to one.
let turned = 0;
element("planes").addEventListener("wheel", (event) => {
  if (!state.volumes || event.ctrlKey) return;
  event.preventDefault();
  turned += event.deltaMode ? 50 * event.deltaY : event.deltaY;
  if (Math.abs(turned) < 50) return;
  scroll(planeAt(event), turned < 0 ? 1 : -1);
  turned = 0;
}, { passive: false });
window.addEventListener("resize", draw);

showSummary();
showList();
showControls();
if (!("DecompressionStream" in window)) {
  element("case").textContent = "This page needs a browser of 2023 or later to show its cases.";
} else if (pages.length) {
  open(0).then(() => {
    element("planes").on("plotly_click", ({ points: [point] }) => {
      const plane = NAMES[Math.floor(point.curveNumber / 3)], { column, row } = PLANES[plane], n = state.volumes[0].shape;
      state.plane = plane;
      state.position[column] = n[column] - 1 - Math.round(point.x);
      state.position[row] = n[row] - 1 - Math.round(point.y);
      draw();
    });
  });
}
