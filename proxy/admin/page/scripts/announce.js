// Tells screen readers when an experiment changes its state or verdict, and nothing else.

export function announce(before, after) {
  const news = [];
  for (const [name, now] of after) {
    const then = before.get(name);
    if (then === undefined) news.push(`${name}: new, ${now}`);
    else if (then !== now) news.push(`${name}: ${now}`);
  }
  if (news.length > 0) document.getElementById("announcement").textContent = news.join(". ");
}

announce.states = (page) => new Map(
  [...page.querySelectorAll("[data-experiment]")].map((section) => {
    const { experiment, state, verdict } = section.dataset;
    return [experiment, verdict ? `${state}, ${verdict}` : state];
  }));
