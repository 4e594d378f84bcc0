// Which chart goes where, and when its data is fetched anew.
import { effectChart, levelsChart } from "./timeseries.js";
import { spreadChart } from "./histogram.js";
import { onChange, theme } from "./theme.js";

const EVERY = 2_000;
const drawn = new WeakMap(); // a .plot -> { chart, kind of data it was made for }
const fetched = new Map(); // experiment -> { at, as, data }

export async function draw(page) {
  for (const section of page.querySelectorAll("[data-experiment]")) {
    if (!section.querySelector("details.body")?.open) continue;
    const data = await series(section);
    if (data !== null) show(section, data);
  }
}

// What is over does not change; its state, run and verdict say so.
async function series(section) {
  const { experiment, state, run, verdict } = section.dataset;
  const as = `${run} ${state} ${verdict}`;
  const last = fetched.get(experiment);
  const over = !["baseline", "running", "recovering"].includes(state);
  if (last && last.as === as && (over || Date.now() - last.at < EVERY)) return last.data;
  try {
    const answer = await fetch(`/api/experiments/${experiment}/series`, {
      cache: "no-store", signal: AbortSignal.timeout(10_000),
    });
    if (!answer.ok) return null;
    const data = await answer.json();
    fetched.set(experiment, { at: Date.now(), as, data });
    return data;
  } catch {
    return null; // the connection says so
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
  const spread = data.latencies[0];
  plot(section, "spread", spread && ((box) => spreadChart(box, spread, theme())), data);
  const which = section.querySelector("[data-chart=spread] .which");
  if (spread && which) which.textContent = `: ${spread.name}`;
}

function plot(within, kind, make, data) {
  const figure = within.querySelector(`[data-chart=${kind}]`);
  const box = figure?.querySelector(".plot");
  if (!box) return;
  figure.classList.toggle("waiting", !make);
  const last = drawn.get(box);
  if (last?.data === data && last.width === box.clientWidth) return;
  // A reader who points at a value is not to lose it.
  if (last?.data !== data && box.matches(":hover") && last) return;
  last?.chart?.destroy();
  box.replaceChildren();
  drawn.set(box, { data, width: box.clientWidth, chart: make ? make(box) : null });
}

function redraw() {
  for (const section of document.querySelectorAll("[data-experiment]")) {
    for (const box of section.querySelectorAll(".plot")) {
      drawn.get(box)?.chart?.destroy();
      drawn.delete(box);
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
