// Both cohorts' latencies: the share of requests that took so long, on a logarithmic axis.
import { seconds, share } from "./numbers.js";
import { axis, bare, line } from "./plots.js";

export function spreadChart(box, { edges, control, experiment }, colours) {
  const stepped = uPlot.paths.stepped({ align: 1 });
  const side = (label, colour, fill) => ({
    ...line(label, colour, share), paths: stepped, fill, spanGaps: false,
  });
  return new uPlot(bare(box, "spread", {
    scales: {
      x: { time: false, distr: 3, range: () => [edges[0], edges.at(-1)] },
      y: { range: (_, low, high) => [0, (high || 1) * 1.1] },
    },
    axes: [
      { ...axis(colours), values: (_, ticks) => ticks.map((x) => (x === null ? "" : round(x))) },
      axis(colours, share),
    ],
    series: [
      { label: "took", value: (_, value) => (value === null ? "–" : seconds(value)) },
      side("control", colours.control, colours.controlFill),
      side("experiment", colours.experiment, colours.experimentFill),
    ],
  }), [edges, shares(control), shares(experiment)], box);
}

// The last edge closes the last step.
function shares(counts) {
  const whole = counts.reduce((sum, count) => sum + count, 0) || 1;
  const found = counts.map((count) => count / whole);
  return [...found, found.at(-1)];
}

// Of the ticks of a logarithmic axis those at 1, 2 and 5 have room for words.
function round(value) {
  const first = Number(value.toExponential()[0]);
  return [1, 2, 5].includes(first) ? seconds(value) : "";
}
