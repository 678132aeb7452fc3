"use strict";
// The state of the page: which case, voxel and window are shown, and how keys and mouse change them.

const head = JSON.parse(document.querySelector("script.evaluation").textContent);
const records = [...document.querySelectorAll("script.case")];
// Windows by name, lowest and highest HU; the key is the place in the list.
const WINDOWS = [["lung", -1350, 150], ["soft tissue", -160, 240], ["bone", -500, 1300],
  ["full", ...head.summary.hu_window]];
const DIFFERENCE = 400; // HU at full colour, as in evaluate's pictures
const BAR = 100; // mm
const state = { number: 0, position: [0, 0, 0], plane: "axial", window: 3, volumes: null, spacing: 1 };
const element = (id) => document.getElementById(id);

function showControls() {
  WINDOWS.forEach(([name, low, high], index) => {
    const button = document.createElement("button");
    button.textContent = `${index + 1} ${name}`;
    button.title = `${low} to ${high} HU`;
    button.addEventListener("click", () => choose(index));
    element("controls").append(button);
  });
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

async function drawRadiographs(record) {
  const pictures = [], rows = record.views.length;
  for (const { radiograph, reprojection, sides } of record.views) {
    const [real, shadow] = (await Promise.all([radiograph, reprojection].map(decode))).map(image);
    const most = Math.max(...real.flat()), least = Math.min(...real.flat());
    pictures.push(gray(real, least, most, sides, ".2f"), gray(shadow, least, most, sides, ".2f"),
      diverging(minus(shadow, real), (most - least) / 5, sides, ".2f"));
  }
  if (record.case_id !== head.cases[state.number].case_id) return; // another case was opened meanwhile
  element("radiographs").hidden = rows === 0;
  element("views").textContent = rows ? `Radiographs: ${record.views.map((view) => view.name).join(", ")}` : "";
  if (record.fitted) element("views").textContent += "; not line integrals: gain and offset of the projections are fitted";
  if (rows === 0) return;
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
  const count = records.length, number_ = ((index % count) + count) % count;
  state.number = number_;
  const record = JSON.parse(records[number_].textContent);
  const volumes = await Promise.all([record.truth, record.prediction].map(decode));
  if (state.number !== number_) return; // another case was opened meanwhile
  const first = state.volumes === null || state.volumes[0].shape.join() !== volumes[0].shape.join();
  state.volumes = volumes;
  state.spacing = record.spacing;
  if (first) state.position = volumes[0].shape.map((n) => Math.floor(n / 2));
  const row = head.cases[number_], own = head.summary.metrics[head.summary.name] || {};
  const finer = record.stored_spacing < record.spacing ? `, averaged down from ${number(record.stored_spacing)} mm` : "";
  element("case").textContent = `${record.case_id}: ${number(row[head.headline])} dB (${number_ + 1} of ${count}), ` +
    `voxels of ${number(record.spacing)} mm${finer}`;
  [...element("list").querySelectorAll("tbody tr")].forEach((line, i) => {
    line.classList.toggle("shown", i === number_);
  });
  reveal(element("list"), element("list").querySelector("tr.shown"));
  const values = Object.keys(row).filter((name) => name !== "case_id")
    .map((name) => [name, number(row[name]), number(own[name]?.mean)]);
  element("values").replaceChildren(table(["", "this case", "mean"], values));
  draw();
  paint();
  await Promise.all([drawing, drawRadiographs(record), drawHistogram()]);
  document.body.dataset.shown = record.case_id; // for whoever waits until a case is drawn
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
} else if (records.length) {
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
