// Puts the charts into their places, and fetches their data again when it may have changed.
import { effectChart, levelsChart } from "./timeseries.js";
import { histogramChart } from "./histogram.js";
import { onChange, theme } from "./theme.js";

// Milliseconds for which the data of a live run is used again.
const MAX_AGE = 2_000;
const plots = new WeakMap(); // element .plot -> { chart, data and width that it was drawn for }
const fetched = new Map(); // experiment -> { at, version, data }

export async function draw(page) {
  for (const section of page.querySelectorAll("[data-experiment]")) {
    if (!section.querySelector("details.body")?.open) continue;
    const data = await series(section);
    if (data !== null) show(section, data);
  }
}

// The data of a run that is over does not change. State, run and verdict are its version.
async function series(section) {
  const { experiment, state, run, verdict } = section.dataset;
  const version = `${run} ${state} ${verdict}`;
  const last = fetched.get(experiment);
  const over = !["baseline", "running", "recovering"].includes(state);
  if (last && last.version === version && (over || Date.now() - last.at < MAX_AGE)) return last.data;
  try {
    const answer = await fetch(`/api/experiments/${experiment}/series`, {
      cache: "no-store", signal: AbortSignal.timeout(10_000),
    });
    if (!answer.ok) return null;
    const data = await answer.json();
    fetched.set(experiment, { at: Date.now(), version, data });
    return data;
  } catch {
    return null; // connection.js shows that the supervisor does not answer
  }
}

function show(section, data) {
  for (const article of section.querySelectorAll("[data-metric]")) {
    const metric = data.metrics[article.dataset.metric];
    if (metric === undefined) continue;
    const known = data.at.length > 1 && metric.control.some((x) => x !== null);
    const judged = data.at.length > 1 && metric.effect.some((x) => x !== null);
    plot(article, "levels", known && ((box) => levelsChart(box, data, metric, theme())), data);
    plot(article, "effect", judged && ((box) => effectChart(box, data, metric, theme())), data);
  }
  const histogram = data.latencies[0];
  plot(section, "histogram", histogram && ((box) => histogramChart(box, histogram, theme())), data);
  const which = section.querySelector("[data-chart=histogram] .which");
  if (histogram && which) which.textContent = `: ${histogram.name}`;
}

function plot(within, kind, make, data) {
  const figure = within.querySelector(`[data-chart=${kind}]`);
  const box = figure?.querySelector(".plot");
  if (!box) return;
  figure.classList.toggle("waiting", !make);
  const last = plots.get(box);
  if (last?.data === data && last.width === box.clientWidth) return;
  // A chart that the pointer is on stays, so that the value shown does not change.
  if (last?.data !== data && box.matches(":hover") && last) return;
  last?.chart?.destroy();
  box.replaceChildren();
  plots.set(box, { data, width: box.clientWidth, chart: make ? make(box) : null });
}

function redraw() {
  for (const section of document.querySelectorAll("[data-experiment]")) {
    for (const box of section.querySelectorAll(".plot")) {
      plots.get(box)?.chart?.destroy();
      plots.delete(box);
      box.replaceChildren();
    }
  }
  draw(document);
}

let resized;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => draw(document), 150);
});
onChange(redraw);
