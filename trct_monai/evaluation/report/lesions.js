"use strict";
// Planted lesions: slices through each in the truth, in the reconstruction with it and without it, and their difference,
// beside the radiographs. The place is not marked until the reader asks for it.

const lesions = [...document.querySelectorAll("script.lesion")];
const shownLesion = { number: 0, window: 0, mark: false };

// The circle around a lesion in the picture with this number of the grid.
function circle({ x, y, radius }, index) {
  return { type: "circle", xref: axisName("x", index), yref: axisName("y", index), x0: x - 1.5 * radius,
    x1: x + 1.5 * radius, y0: y - 1.5 * radius, y1: y + 1.5 * radius, line: { color: ACCENT, width: 2 } };
}

async function drawLesion() {
  const { number: index, window: chosen, mark } = shownLesion, record = JSON.parse(lesions[index].textContent);
  const [name, low, high] = WINDOWS[chosen], pictures = [], shapes = [], columns = record.views.length ? 5 : 4;
  for (const [row, part] of record.slices.entries()) {
    const { sides } = PLANES[part.plane];
    const [truth, shown, without] =
      (await Promise.all([part.truth, part.with, part.without].map(decode))).map(image);
    pictures.push(...[truth, shown, without].map((z) => gray(z, low, high, sides, ".0f")),
      diverging(minus(shown, without), record.contrast_hu, sides, ".0f"));
    for (let c = 0; c < 4; c++) shapes.push(circle(part.mark, columns * row + c));
    const view = record.views[row];
    if (view) {
      const z = image(await decode(view.radiograph));
      pictures.push(gray(z, Math.min(...z.flat()), Math.max(...z.flat()), view.sides, ".2f"));
      shapes.push(circle(view.mark, columns * row + 4));
    } else if (columns === 5) pictures.push(gray([[null]], 0, 1, ["", "", "", ""], ".0f"));
  }
  if (index !== shownLesion.number) return; // another lesion was opened meanwhile
  const titles = ["truth", "reconstruction", "the same without the lesion",
    `difference, \u00b1${number(record.contrast_hu)} HU`, `radiographs: ${record.views.map((v) => v.name).join(", ")}`];
  const [traces, layout] =
    grid(pictures, 2, columns, titles, 32 + (2 * element("lesion_pictures").clientWidth) / columns);
  layout.shapes = mark ? shapes : [];
  element("lesion").textContent = `${record.case_id} (${index + 1} of ${lesions.length}): a sphere of ` +
    `${number(record.diameter_mm)} mm, ${number(record.contrast_hu)} HU above the lung; ${name} window, ` +
    `${low} to ${high} HU; axial and coronal slices through its centre`;
  [...element("lesion_controls").querySelectorAll("button")].forEach((button, i) => {
    button.classList.toggle("chosen", i === chosen || (i === WINDOWS.length && mark));
  });
  await Plotly.react("lesion_pictures", traces, layout, CONFIG);
  element("lesions").dataset.shown = `${record.case_id} ${name} ${mark}`; // for whoever waits until it is drawn
}

function lesionButton(text, change) {
  const button = document.createElement("button");
  button.textContent = text;
  button.addEventListener("click", () => {
    change();
    drawLesion();
  });
  element("lesion_controls").append(button);
}

if (lesions.length && "DecompressionStream" in window) {
  element("lesions").hidden = false;
  WINDOWS.forEach(([name], index) => lesionButton(name, () => { shownLesion.window = index; }));
  lesionButton("mark the place", () => { shownLesion.mark = !shownLesion.mark; });
  const step = (by) => () => {
    shownLesion.number = (shownLesion.number + by + lesions.length) % lesions.length;
    shownLesion.mark = false;
  };
  lesionButton("previous", step(-1));
  lesionButton("next", step(1));
  drawLesion();
}
