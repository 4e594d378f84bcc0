// Whether the supervisor is there: an event a second, and silence is a loss.
const PATIENCE = 5_000;
const AGAIN = 1_000;

export class Connection {
  #news;
  #source;
  #heard = Date.now();
  #lostAt = null;

  constructor(news) {
    this.#news = news;
  }

  open() {
    this.#source?.close();
    this.#source = new EventSource("/api/events");
    this.#source.onmessage = () => {
      this.#heard = Date.now();
      this.#news();
      if (document.hidden) this.answered();
    };
    this.#source.onerror = () => {
      this.failed();
      // The browser tries again by itself, unless it was answered with something else.
      if (this.#source.readyState === EventSource.CLOSED) this.#later();
    };
    this.#watch();
  }

  answered() {
    this.#heard = Date.now();
    if (this.#lostAt !== null) say("Connected again.");
    this.#lostAt = null;
    this.#show("connected");
  }

  failed() {
    this.#lostAt ??= new Date();
    this.#show("disconnected");
  }

  #later() {
    setTimeout(() => {
      this.#news();
      this.open();
    }, AGAIN);
  }

  #watching = null;
  #watch() {
    this.#watching ??= setInterval(() => {
      if (Date.now() - this.#heard < PATIENCE || document.hidden) return;
      this.#heard = Date.now();
      this.failed();
      this.open();
    }, AGAIN);
  }

  #show(state) {
    const pill = document.getElementById("connection");
    if (pill.textContent !== state) pill.textContent = state;
    pill.className = `pill script ${state}`;
    document.documentElement.classList.toggle("lost", this.#lostAt !== null);
    const lost = document.getElementById("lost");
    lost.hidden = this.#lostAt === null;
    const since = this.#lostAt?.toLocaleTimeString();
    const said = `Disconnected since ${since}: the supervisor does not answer, and what you see ` +
      "is old. Traffic passes on, and faults end with the lease.";
    if (this.#lostAt !== null && lost.textContent !== said) lost.textContent = said;
  }
}

function say(text) {
  document.getElementById("said").textContent = text;
}
