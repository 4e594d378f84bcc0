// Formats numbers for the axes and legends of charts.

export function seconds(value) {
  if (value >= 1 || value === 0) return `${trim(value)} s`;
  return value >= 1e-3 ? `${trim(value * 1e3)} ms` : `${trim(value * 1e6)} µs`;
}

export const share = (value) => `${trim(value * 100)} %`;

export const plain = (value) => trim(value);

export const effect = (unit) => (value) => `${trim(value * 100)} ${unit}`.replace("-", "−");

export function trim(value) {
  return value === 0 ? "0" : `${Number(value.toPrecision(3))}`;
}

export const ofKind = (kind) =>
  ({ success_rate: share, slow: share, latency: seconds, rate: plain })[kind];
