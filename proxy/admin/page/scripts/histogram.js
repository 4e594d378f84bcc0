// A histogram of both cohorts' latencies: the share of requests per bar, on a logarithmic axis.
import { seconds, share } from "./numbers.js";
import { axis, bare, line } from "./plots.js";

export function histogramChart(box, { edges, control, experiment }, colours) {
  const stepped = uPlot.paths.stepped({ align: 1 });
  const side = (label, colour, fill) => ({
    ...line(label, colour, share), paths: stepped, fill, spanGaps: false,
  });
  return new uPlot(bare(box, "histogram", {
    scales: {
      x: { time: false, distr: 3, range: () => [edges[0], edges.at(-1)] },
      y: { range: (_, low, high) => [0, (high || 1) * 1.1] },
    },
    axes: [
      {
        ...axis(colours),
        splits: (_, __, low, high) => marks(low, high),
        filter: (_, ticks) => ticks,
        values: (u, ticks) => labels(u, ticks),
      },
      axis(colours, share),
    ],
    series: [
      { label: "took", value: (_, value) => (value === null ? "–" : seconds(value)) },
      side("control", colours.control, colours.controlFill),
      side("experiment", colours.experiment, colours.experimentFill),
    ],
  }), [edges, shares(control), shares(experiment)], box);
}

// There is one more edge than counts; the last share is repeated at the last edge.
function shares(counts) {
  const whole = counts.reduce((sum, count) => sum + count, 0) || 1;
  const found = counts.map((count) => count / whole);
  return [...found, found.at(-1)];
}

// 1 to 9 of each power of ten. uPlot's own loop does not end if the range begins at, say, 9.9 ms.
function marks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (let digit = 1; digit <= 9; digit++) {
      const mark = Number(`${digit}e${power}`);
      if (low <= mark && mark <= high) found.push(mark);
    }
  }
  return found;
}

// Which of the marks 1 to 9 have labels, and the least distance between two of these, in decades.
const LABELLED = [["123456789", 0.045], ["125", 0.3], ["13", 0.47], ["1", 1]];
const LABEL_WIDTH = 48; // pixels

function labels(u, ticks) {
  const { min, max } = u.scales.x;
  const decade = u.bbox.width / devicePixelRatio / Math.log10(max / min);
  const [digits] = LABELLED.find(([, apart]) => apart * decade >= LABEL_WIDTH) ?? LABELLED.at(-1);
  return ticks.map((x) => (digits.includes(x.toExponential()[0]) ? seconds(x) : ""));
}
