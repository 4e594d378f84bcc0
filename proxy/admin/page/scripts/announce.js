// For screen readers: what has become of an experiment, and nothing else of all that moves.

export function announce(before, after) {
  const news = [];
  for (const [name, now] of after) {
    const then = before.get(name);
    if (then === undefined) news.push(`${name}: new, ${now}`);
    else if (then !== now) news.push(`${name}: ${now}`);
  }
  if (news.length > 0) document.getElementById("said").textContent = news.join(". ");
}

announce.states = (page) => new Map(
  [...page.querySelectorAll("[data-experiment]")].map((section) => {
    const { experiment, state, verdict } = section.dataset;
    return [experiment, verdict ? `${state}, ${verdict}` : state];
  }));
