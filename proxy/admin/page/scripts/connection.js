// Shows whether the supervisor answers: it sends an event a second, and silence means a loss.
const TIMEOUT = 5_000; // milliseconds without an event
const RETRY = 1_000;

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
      // The browser reconnects by itself unless the answer was not an event stream.
      if (this.#source.readyState === EventSource.CLOSED) this.#later();
    };
    this.#watch();
  }

  answered() {
    this.#heard = Date.now();
    if (this.#lostAt !== null) announce("Connected again.");
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
    }, RETRY);
  }

  #watching = null;
  #watch() {
    this.#watching ??= setInterval(() => {
      if (Date.now() - this.#heard < TIMEOUT || document.hidden) return;
      this.#heard = Date.now();
      this.failed();
      this.open();
    }, RETRY);
  }

  #show(state) {
    const pill = document.getElementById("connection");
    if (pill.textContent !== state) pill.textContent = state;
    pill.className = `pill script ${state}`;
    document.documentElement.classList.toggle("lost", this.#lostAt !== null);
    const lost = document.getElementById("lost");
    lost.hidden = this.#lostAt === null;
    const since = this.#lostAt?.toLocaleTimeString();
    const text = `Disconnected since ${since}: the supervisor does not answer, and what you see ` +
      "is old. Traffic passes on, and faults end with the lease.";
    if (this.#lostAt !== null && lost.textContent !== text) lost.textContent = text;
  }
}

function announce(text) {
  document.getElementById("announcement").textContent = text;
}
