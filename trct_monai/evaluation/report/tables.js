"use strict";
// Numbers and tables: the scores of the evaluation, and the list of its cases.

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
    (records.length < head.num_cases ? ` This page holds the ${records.length} worst cases only.` : "");
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
  if (summary.sharpness) {
    const { mtf50_lp_cm: mtf50, recovered, diameter_mm: diameter } = summary.sharpness;
    const rows = Object.keys(mtf50).map((name) => [name.replaceAll("_", " "), number(mtf50[name]), number(recovered[name])]);
    element("scores").append(table([`spheres of ${number(diameter)} mm`, "MTF50 (lp/cm)", "modulation at 0"], rows,
      `sharpness, up to ${number(summary.sharpness.limit_lp_cm)} lp/cm`));
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
