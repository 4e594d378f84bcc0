// A metric over time: both cohorts' levels, and the estimate with its band against the tolerance.
import { effect, ofKind } from "./numbers.js";
import { axis, bare, line, onFaults, timeAxis, times } from "./plots.js";

export function levelsChart(box, data, metric, colours) {
  const said = ofKind(metric.kind);
  return new uPlot(bare(box, "levels", {
    scales: { x: { time: true }, y: { range: (_, low, high) => floor(low, high) } },
    axes: [timeAxis(colours), axis(colours, said)],
    series: [
      times,
      // Wider, so that it can be seen below the other where both are the same.
      { ...line("control", colours.control, said), width: 2.5 },
      line("experiment", colours.experiment, said),
    ],
    hooks: { drawClear: [onFaults(data, colours)] },
  }), [data.at, metric.control, metric.experiment], box);
}

export function effectChart(box, data, metric, colours) {
  const said = effect(metric.unit);
  const [low, high] = reach(metric);
  // A bound that is none lies beyond the edge.
  const known = metric.effect.map((x) => x !== null);
  const upper = metric.upper.map((x, i) => (known[i] ? x ?? 1e3 : null));
  const lower = metric.lower.map((x, i) => (known[i] ? x ?? -1e3 : null));
  return new uPlot(bare(box, "effect", {
    scales: { x: { time: true }, y: { range: () => [low, high] } },
    axes: [timeAxis(colours), axis(colours, said)],
    bands: [{ series: [3, 2], fill: colours.band }],
    series: [
      times,
      { ...line("worse by", colours.experiment, said), value: told(said) },
      { ...line("at least", colours.edge, said), width: 1, points: { show: false } },
      { ...line("at most", colours.edge, said), width: 1, points: { show: false } },
    ],
    hooks: {
      drawClear: [onFaults(data, colours), harm(metric.allowed, colours), alone(colours)],
      drawAxes: [tolerance(metric.allowed, said, colours)],
    },
  }), [data.at, metric.effect, lower, upper], box);
}

// The estimate with its bounds, as one entry of the legend.
function told(said) {
  const bound = (value) => (Math.abs(value) >= 999 ? "?" : said(value));
  return (u, value, _, i) => (value === null || i === null
    ? "–" : `${said(value)} (${bound(u.data[2][i])} to ${bound(u.data[3][i])})`);
}

// A run that ends at its first estimate has bounds at one moment, which no band can show.
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
  // A little below nothing, so that a line of noughts can be seen.
  return [low < high / 2 || low === high ? top * -0.04 : low * 0.95, top];
}

// Enough to see the tolerance, the estimates, and the band as it is now.
function reach({ allowed, effect: effects, lower, upper }) {
  const told = effects.filter((x) => x !== null);
  const late = told.slice(Math.floor(told.length / 4));
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

function tolerance(allowed, said, colours) {
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
    u.ctx.fillText(`${said(allowed)} allowed`, left + space, y - space);
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
