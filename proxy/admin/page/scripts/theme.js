// The colours of the style sheet, for canvases.

export function theme() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    control: of("control"), experiment: of("experiment"), band: of("band"), edge: of("band-edge"),
    controlFill: of("control-fill"), experimentFill: of("experiment-fill"),
    muted: of("muted"), grid: of("grid"), allowed: of("bad"), harm: of("harm"),
    faults: of("faults"), ink: of("ink"),
  };
}

export const onChange = (redraw) =>
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
