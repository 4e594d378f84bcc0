// What all charts have in common.

const HEIGHT = 150;

// Accessible as an image: the numbers stand in the table beside it.
export function bare(box, name, more) {
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", box.closest("figure").querySelector("figcaption").textContent);
  const sync = box.closest("[data-experiment]").dataset.experiment;
  return {
    width: Math.max(200, box.clientWidth),
    height: HEIGHT,
    cursor: { sync: { key: name === "spread" ? `${sync} spread` : sync }, drag: { x: false, y: false } },
    legend: { live: true },
    padding: [6, 24, 0, 0],
    ...more,
  };
}

export function axis(colours, said) {
  return {
    stroke: colours.muted,
    font: "11px system-ui, sans-serif",
    grid: { stroke: colours.grid, width: 1 },
    ticks: { stroke: colours.grid, width: 1, size: 4 },
    size: said ? 58 : 26,
    gap: 3,
    space: said ? 28 : 72,
    values: said && ((_, ticks) => ticks.map((tick) => (tick === null ? "" : said(tick)))),
  };
}

// The reader's own time of day, with seconds where it goes by seconds.
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

export function line(label, colour, said) {
  return {
    label, stroke: colour, width: 1.5, spanGaps: true, points: { show: isAlone, size: 4 },
    value: (_, value) => (value === null ? "–" : Math.abs(value) >= 999 ? "unbounded" : said(value)),
  };
}

// No line leads through a single value.
const isAlone = (u, series) => u.data[series].filter((value) => value !== null).length === 1;

// The ground is shaded while faults are on.
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
