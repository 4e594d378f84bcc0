// Charts of a metric over time: both cohorts' levels, and the estimate with bounds and tolerance.
import { effect, ofKind } from "./numbers.js";
import { axis, bare, line, onFaults, timeAxis, times } from "./plots.js";

export function levelsChart(box, data, metric, colours) {
  const format = ofKind(metric.kind);
  return new uPlot(bare(box, "levels", {
    scales: { x: { time: true }, y: { range: (_, low, high) => floor(low, high) } },
    axes: [timeAxis(colours), axis(colours, format)],
    series: [
      times,
      // Wider than the other line, so that it is visible where both are the same.
      { ...line("control", colours.control, format), width: 2.5 },
      line("experiment", colours.experiment, format),
    ],
    hooks: { drawClear: [onFaults(data, colours)] },
  }), [data.at, metric.control, metric.experiment], box);
}

export function effectChart(box, data, metric, colours) {
  const format = effect(metric.unit);
  const [low, high] = reach(metric);
  // A missing bound is drawn far beyond the edge of the chart.
  const known = metric.effect.map((x) => x !== null);
  const upper = metric.upper.map((x, i) => (known[i] ? x ?? 1e3 : null));
  const lower = metric.lower.map((x, i) => (known[i] ? x ?? -1e3 : null));
  return new uPlot(bare(box, "effect", {
    scales: { x: { time: true }, y: { range: () => [low, high] } },
    axes: [timeAxis(colours), axis(colours, format)],
    bands: [{ series: [3, 2], fill: colours.band }],
    series: [
      times,
      { ...line("worse by", colours.experiment, format), value: estimateLabel(format) },
      { ...line("at least", colours.edge, format), width: 1, points: { show: false } },
      { ...line("at most", colours.edge, format), width: 1, points: { show: false } },
    ],
    hooks: {
      drawClear: [onFaults(data, colours), harm(metric.allowed, colours), alone(colours)],
      drawAxes: [tolerance(metric.allowed, format, colours)],
    },
  }), [data.at, metric.effect, lower, upper], box);
}

// The text of the legend: the estimate with its bounds.
function estimateLabel(format) {
  const bound = (value) => (Math.abs(value) >= 999 ? "?" : format(value));
  return (u, value, _, i) => (value === null || i === null
    ? "–" : `${format(value)} (${bound(u.data[2][i])} to ${bound(u.data[3][i])})`);
}

// A run that ends at its first estimate has bounds at one moment: a bar shows them, not a band.
function alone(colours) {
  return (u) => {
    const [at, estimates, lower, upper] = u.data;
    const known = estimates.flatMap((x, i) => (x === null ? [] : [i]));
    const place = (i) => u.valToPos(at[i], "x", true);
    const [last, width] = [known.at(-1), 8 * devicePixelRatio];
    if (last === undefined || place(last) - place(known[0]) >= width) return;
    const { top, height } = u.bbox;
    const within = (value) => Math.min(top + height, Math.max(top, u.valToPos(value, "y", true)));
    const bar = (from, to) => u.ctx.fillRect(place(last) - width / 2, from, width, to - from);
    const [high, low, middle] = [upper, lower, estimates].map((values) => within(values[last]));
    u.ctx.save();
    u.ctx.fillStyle = colours.edge;
    bar(high, low);
    u.ctx.fillStyle = colours.experiment;
    bar(middle - devicePixelRatio, middle + devicePixelRatio);
    u.ctx.restore();
  };
}

function floor(low, high) {
  if (low === null) return [0, 1];
  const top = high > 0 ? high * 1.1 : 0.05;
  // A little below zero, so that a line at zero is visible.
  return [low < high / 2 || low === high ? top * -0.04 : low * 0.95, top];
}

// The range of effects shown: it holds the tolerance, the later estimates and the last bounds.
function reach({ allowed, effect: effects, lower, upper }) {
  const known = effects.filter((x) => x !== null);
  const late = known.slice(Math.floor(known.length / 4));
  const most = 12 * allowed;
  const high = Math.max(2 * allowed, ...late.map((x) => 1.2 * x), 1.15 * (upper.at(-1) ?? 0));
  const low = Math.min(-allowed, ...late.map((x) => 1.2 * x), 1.15 * (lower.at(-1) ?? 0));
  const widest = Math.max(most, ...late.map((x) => 1.4 * Math.abs(x)));
  return [Math.max(low, -widest), Math.min(high, widest)];
}

function harm(allowed, colours) {
  return (u) => {
    const { left, top, width } = u.bbox;
    u.ctx.save();
    u.ctx.fillStyle = colours.harm;
    u.ctx.fillRect(left, top, width, Math.max(0, u.valToPos(allowed, "y", true) - top));
    u.ctx.restore();
  };
}

function tolerance(allowed, format, colours) {
  return (u) => {
    const { left, width } = u.bbox;
    const y = u.valToPos(allowed, "y", true);
    const space = 4 * devicePixelRatio;
    u.ctx.save();
    stroke(u, left, width, u.valToPos(0, "y", true), colours.muted, []);
    stroke(u, left, width, y, colours.allowed, [6, 4]);
    u.ctx.textAlign = "left";
    u.ctx.textBaseline = "bottom";
    u.ctx.fillStyle = colours.allowed;
    u.ctx.font = `${10 * devicePixelRatio}px system-ui, sans-serif`;
    u.ctx.fillText(`${format(allowed)} allowed`, left + space, y - space);
    u.ctx.restore();
  };
}

function stroke(u, left, width, y, colour, dash) {
  if (y < u.bbox.top || y > u.bbox.top + u.bbox.height) return;
  u.ctx.strokeStyle = colour;
  u.ctx.lineWidth = devicePixelRatio;
  u.ctx.setLineDash(dash.map((x) => x * devicePixelRatio));
  u.ctx.beginPath();
  u.ctx.moveTo(left, y);
  u.ctx.lineTo(left + width, y);
  u.ctx.stroke();
}
