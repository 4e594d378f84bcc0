// Shows times in the reader's zone; the tooltip has UTC.
const SHOWN = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

export function localise(page) {
  for (const time of page.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    time.textContent = SHOWN.format(at);
    time.title = `${at.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  }
}
