"use strict";
// Pictures of volumes (X, Y, Z) in RAS+ order, z fastest, and grids of them for Plotly. Planes are shown as a radiologist
// hangs them: the patient's right on the left, head and anterior up; in a sagittal plane anterior on the left.

// Axes of the volume that run along a plane's columns and rows, the axis that it cuts, and what stands at its sides.
const PLANES = {
  axial: { column: 0, row: 1, cut: 2, sides: ["R", "L", "A", "P"] },
  coronal: { column: 0, row: 2, cut: 1, sides: ["R", "L", "S", "I"] },
  sagittal: { column: 1, row: 2, cut: 0, sides: ["A", "P", "S", "I"] },
};
const NAMES = Object.keys(PLANES);
const COLUMNS = ["truth", "prediction", "difference"];

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

// The array that codec.py encoded.
async function decode(record) {
  const packed = Uint8Array.from(atob(record.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = bytes.length / 2, along = record.shape[record.shape.length - 1];
  const values = new Float32Array(count);
  let sum = 0;
  for (let i = 0; i < count; i++) {
    if (i % along === 0) sum = 0;
    sum = (sum + bytes[i] + (bytes[count + i] << 8) - 128) & 0xffff;
    values[i] = record.offset + record.step * sum;
  }
  return { values, shape: record.shape };
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
