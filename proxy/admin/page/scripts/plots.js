// The parts that all charts share.

const HEIGHT = 150;

// The options of a chart. For screen readers it is an image; the numbers are in the table beside it.
export function bare(box, name, more) {
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", box.closest("figure").querySelector("figcaption").textContent);
  const sync = box.closest("[data-experiment]").dataset.experiment;
  return {
    width: Math.max(200, box.clientWidth),
    height: HEIGHT,
    cursor: { sync: { key: name === "histogram" ? `${sync} histogram` : sync }, drag: { x: false, y: false } },
    legend: { live: true },
    padding: [6, 24, 0, 0],
    ...more,
  };
}

export function axis(colours, format) {
  return {
    stroke: colours.muted,
    font: "11px system-ui, sans-serif",
    grid: { stroke: colours.grid, width: 1 },
    ticks: { stroke: colours.grid, width: 1, size: 4 },
    size: format ? 58 : 26,
    gap: 3,
    space: format ? 28 : 72,
    values: format && ((_, ticks) => ticks.map((tick) => (tick === null ? "" : format(tick)))),
  };
}

// An axis in the reader's time zone; it shows seconds if the ticks are less than a minute apart.
export function timeAxis(colours) {
  return {
    ...axis(colours),
    values: (u, ticks, index, space, step) => ticks.map((tick) => timeOfDay(tick, step < 60)),
  };
}

export const times = { label: "at", value: (_, at) => (at === null ? "–" : timeOfDay(at, true)) };

function timeOfDay(at, precise) {
  return new Date(at * 1000).toLocaleTimeString(undefined, {
    hour: "2-digit", minute: "2-digit", second: precise ? "2-digit" : undefined, hourCycle: "h23",
  });
}

export function line(label, colour, format) {
  return {
    label, stroke: colour, width: 1.5, spanGaps: true, points: { show: isAlone, size: 4 },
    value: (_, value) => (value === null ? "–" : Math.abs(value) >= 999 ? "unbounded" : format(value)),
  };
}

// A single value is a point, because no line leads through it.
const isAlone = (u, series) => u.data[series].filter((value) => value !== null).length === 1;

// Shades the background where faults are on.
export function onFaults(data, colours) {
  return (u) => {
    const { left, top, width, height } = u.bbox;
    u.ctx.save();
    u.ctx.fillStyle = colours.faults;
    for (const [from, to] of stretches(data)) {
      const start = Math.max(left, u.valToPos(from, "x", true));
      const end = Math.min(left + width, u.valToPos(to, "x", true));
      if (end > start) u.ctx.fillRect(start, top, end - start, height);
    }
    u.ctx.restore();
  };
}

function stretches({ at, states }) {
  const found = [];
  states.forEach((state, i) => {
    if (state !== "running") return;
    const from = at[Math.max(0, i - 1)];
    if (i > 0 && states[i - 1] === "running") found.at(-1)[1] = at[i];
    else found.push([from, at[i]]);
  });
  return found;
}
