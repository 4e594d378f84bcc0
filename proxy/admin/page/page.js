// Each event says that there is news; the server renders it.
const lost = document.getElementById("lost");
let busy = false;
async function refresh() {
  if (busy) return;
  busy = true;
  try {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const news = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(news.querySelector("main"));
    lost.hidden = true;
  } catch {
    lost.hidden = false;
  } finally {
    busy = false;
  }
}
const events = new EventSource("/api/events");
events.onmessage = () => { if (!document.hidden && !getSelection().toString()) refresh(); };
events.onerror = () => { lost.hidden = false; };
