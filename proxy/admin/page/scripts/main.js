// Keeps the page fresh: at every event it fetches the page anew and changes what differs.
import { announce } from "./announce.js";
import { draw } from "./charts.js";
import { Connection } from "./connection.js";
import { morph } from "./morph.js";
import { attend } from "./stop.js";
import { localise } from "./times.js";

const connection = new Connection(refresh);
let refreshing = null;

function refresh() {
  refreshing ??= again().finally(() => { refreshing = null; });
  return refreshing;
}

async function again() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(10_000) });
    // Signed out: the reload shows the sign-in form.
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(`${answer.status}`);
    show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    connection.answered();
  } catch {
    connection.failed();
  }
}

function show(fresh) {
  const version = (page) => page.querySelector("meta[name=version]")?.content;
  if (version(fresh) !== version(document)) return location.reload();
  const live = document.getElementById("live");
  localise(fresh);
  fresh.documentElement.querySelector("#connection")?.replaceWith(
    document.getElementById("connection").cloneNode(true));
  const before = announce.states(live);
  morph(live, fresh.getElementById("live"));
  document.title = fresh.title;
  announce(before, announce.states(live));
  draw(live);
}

document.documentElement.classList.remove("no-js");
localise(document);
attend(refresh);
connection.open();
draw(document.getElementById("live"));
document.addEventListener("visibilitychange", refresh);
document.addEventListener("toggle", () => draw(document.getElementById("live")), true);
