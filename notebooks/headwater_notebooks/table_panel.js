// The live table. It asks, the kernel answers; it never asks twice before an answer, and not at all while
// paused, hidden or off the screen. Everything that came from data reaches the page through textContent.

const BUSY_AFTER_MS = 2000; // an answer that takes longer shows as "kernel busy"
const LOST_AFTER_MS = 15000; // ... and longer than this as "no answer"
const AUTO_MAX_MS = 2000; // the longest pause of the automatic interval while nothing changes
const LOAD_SHARE = 4; // automatic: wait at least this many times as long as the last answer took ...
const LOAD_MAX_MS = 10000; // ... but after one long cell not for minutes
const INTERVALS = [["auto", "auto"], ["500", "0.5 s"], ["1000", "1 s"], ["5000", "5 s"], ["30000", "30 s"]];
const STATES = {
  loading: "loading", live: "live", paused: "paused", hidden: "not in view", busy: "kernel busy",
  lost: "no answer", error: "error", closed: "closed",
};

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function button(label, title, act) {
  const node = make("button", "hw-button", label);
  node.type = "button";
  node.title = title;
  node.addEventListener("click", act);
  return node;
}

const grouped = (digits) => String(digits).replace(/\B(?=(\d{3})+(?!\d))/g, ",");

function ago(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 1) return "just now";
  if (seconds < 90) return `${seconds} s ago`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

// "> 10", "!= x", "null", "not null"; anything else means "contains".
function parseFilter(column, text) {
  const trimmed = text.trim();
  if (!trimmed) return null;
  if (/^(<=|>=|!=|<>|=|<|>)$/.test(trimmed)) return null; // not typed to its end yet
  if (/^(is )?null$/i.test(trimmed)) return { column, op: "null" };
  if (/^(is )?not null$/i.test(trimmed)) return { column, op: "not null" };
  const [, op, value] = /^(<=|>=|!=|<>|=|<|>)\s*(.*)$/s.exec(trimmed) || [null, "contains", trimmed];
  return { column, op: op === "<>" ? "!=" : op, value };
}

// Which earlier row each row continues: by the column whose values are unique in both pages and that matches
// the most rows, else by the shortest unique run of leading columns. A single row continues a single row.
function matchRows(before, after) {
  if (!before.length || !after.length || before[0].length !== after[0].length) return null;
  if (before.length === 1 && after.length === 1) return [before[0]];
  const width = after[0].length;
  const candidates = [];
  for (let c = 0; c < width; c++) candidates.push((row) => JSON.stringify(row[c]));
  for (let n = 2; n <= width; n++) candidates.push((row) => JSON.stringify(row.slice(0, n)));
  let best = null;
  let most = 0;
  for (const key of candidates) {
    const known = new Map(before.map((row) => [key(row), row]));
    if (known.size < before.length || new Set(after.map(key)).size < after.length) continue;
    const matched = after.map((row) => known.get(key(row)) || null);
    const count = matched.filter(Boolean).length;
    if (count > most) [best, most] = [matched, count];
  }
  return best;
}

// The part that talks: one request outstanding, a pause after each answer, none while nobody looks.
class Puller {
  constructor(model, describe, onReply, onState) {
    Object.assign(this, { model, describe, onReply, onState });
    this.view = Math.random().toString(36).slice(2, 10);
    this.count = 0;
    this.pending = null; // {id, revision, sent}
    this.revision = 0; // grows with each change of what is asked for
    this.version = null;
    this.paused = false;
    this.visible = false;
    this.closed = false;
    this.failed = false;
    this.answered = null; // when the last answer came
    this.every = "auto";
    this.base = Math.max(100, model.get("_interval_ms") || 500);
    this.delay = this.base;
    this.timer = null;
    this.receive = this.receive.bind(this);
    model.on("msg:custom", this.receive);
  }

  get state() {
    if (this.closed) return "closed";
    const waited = this.pending ? performance.now() - this.pending.sent : 0;
    if (waited > LOST_AFTER_MS) return "lost";
    if (this.failed) return "error";
    if (this.paused) return "paused";
    if (!this.visible) return "hidden";
    if (waited > BUSY_AFTER_MS) return "busy";
    return this.answered === null ? "loading" : "live";
  }

  // What is asked for changed: ask at once, even when paused, because a person did it.
  change() {
    this.revision += 1;
    this.version = null;
    this.ask(true);
  }

  ask(byPerson = false) {
    clearTimeout(this.timer);
    if (this.pending || this.closed) return;
    if (!byPerson && (this.paused || !this.visible)) return;
    this.pending = { id: `${this.view}.${++this.count}`, revision: this.revision, sent: performance.now() };
    this.model.send({ id: this.pending.id, op: "page", since_version: this.version, ...this.describe() });
    this.onState();
  }

  receive(message) {
    if (message && message.closed) return this.close();
    if (!this.pending || !message || message.id !== this.pending.id) return;
    const { revision, sent } = this.pending;
    this.pending = null;
    if (revision !== this.revision) return this.ask(true); // the question changed meanwhile
    const took = performance.now() - sent;
    this.failed = Boolean(message.error);
    this.answered = Date.now();
    if (!message.error) this.version = message.version;
    const quiet = message.unchanged || message.error;
    this.delay = quiet ? Math.min(this.delay * 1.5, Math.max(AUTO_MAX_MS, this.base)) : this.base;
    this.delay = Math.max(this.delay, Math.min(took * LOAD_SHARE, LOAD_MAX_MS));
    this.onReply(message);
    this.later();
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), this.every === "auto" ? this.delay : Number(this.every));
  }

  pause(paused) {
    this.paused = paused;
    clearTimeout(this.timer);
    if (!paused) this.ask();
    this.onState();
  }

  see(visible) {
    if (visible === this.visible) return;
    this.visible = visible;
    clearTimeout(this.timer);
    if (visible) this.ask();
    this.onState();
  }

  retry() {
    this.pending = null; // its answer, should it still come, carries another id
    this.ask(true);
  }

  close() {
    this.closed = true;
    this.pending = null;
    clearTimeout(this.timer);
    this.model.off("msg:custom", this.receive);
    this.onState();
  }
}

class Table {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.columns = [];
    this.rows = [];
    this.cells = [];
    this.sort = [];
    this.filters = new Map(); // column -> text as typed
    this.pages = [null]; // the key after which each page up to this one starts
    this.next = null;
    this.start = 0; // rows before this page
    this.beat = false;
    this.build();
    this.puller = new Puller(model, () => this.request(), (reply) => this.show(reply), () => this.showState());
    this.watchVisibility();
    this.clock = setInterval(() => this.showState(), 1000);
    this.showState();
  }

  request() {
    const filters = [];
    for (const [column, text] of this.filters) {
      const filter = parseFilter(column, text);
      if (filter) filters.push(filter);
    }
    return {
      sort: this.sort, filters, after_key: this.pages[this.pages.length - 1],
      limit: this.model.get("_page_rows") || 50,
    };
  }

  build() {
    const { root } = this;
    root.classList.add("hw-panel");
    root.setAttribute("role", "region");
    root.setAttribute("aria-label", "live table");
    root.setAttribute("data-lm-suppress-shortcuts", "true"); // else JupyterLab acts on our single keys
    const bar = make("div", "hw-bar");
    this.dot = make("span", "hw-dot");
    this.dot.setAttribute("aria-hidden", "true");
    this.stateText = make("span", "hw-state");
    this.stateText.setAttribute("role", "status");
    this.total = make("span", "hw-fact hw-total");
    this.position = make("span", "hw-fact hw-position");
    this.age = make("span", "hw-fact hw-age");
    this.every = make("select", "hw-select");
    this.every.setAttribute("aria-label", "refresh interval");
    this.every.title = "How often to ask. auto: as often as answers are quick and something changes";
    for (const [value, label] of INTERVALS) this.every.append(new Option(label, value));
    this.every.addEventListener("change", () => { this.puller.every = this.every.value; this.puller.ask(); });
    this.filterButton = button("filter", "Show or hide a filter per column (f)", () => this.toggleFilters());
    this.filterButton.setAttribute("aria-expanded", "false");
    this.pauseButton = button("pause", "Stop or go on asking for changes (space)", () => this.togglePause());
    bar.append(this.dot, this.stateText, this.total, this.position, this.age, make("span", "hw-gap"),
      this.every, this.filterButton, this.pauseButton);

    this.message = make("div", "hw-message");
    this.message.setAttribute("role", "alert");
    this.message.hidden = true;
    this.scroll = make("div", "hw-scroll");
    this.scroll.tabIndex = 0;
    this.scroll.setAttribute("role", "group");
    this.scroll.setAttribute("aria-label", "rows; space pauses, f filters, n and p turn pages");
    this.scroll.addEventListener("keydown", (event) => this.key(event));
    this.table = make("table", "hw-table");
    this.head = this.table.createTHead();
    this.body = this.table.createTBody();
    this.scroll.append(this.table);

    const foot = make("div", "hw-foot");
    this.range = make("span", "hw-range");
    this.note = make("span", "hw-note");
    this.firstButton = button("first", "First page", () => this.turn("first"));
    this.previousButton = button("previous", "Previous page (p)", () => this.turn("previous"));
    this.nextButton = button("next", "Next page (n)", () => this.turn("next"));
    const query = make("details", "hw-query");
    query.append(make("summary", "", "SQL"), make("pre", "", this.model.get("_sql") || ""));
    foot.append(this.range, this.note, make("span", "hw-gap"), this.firstButton, this.previousButton,
      this.nextButton, query);
    root.append(bar, this.message, this.scroll, foot);
  }

  // Keys that are ours end here: a notebook acts on single keys too.
  key(event) {
    if (event.target !== this.scroll || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      " ": () => this.togglePause(), f: () => this.toggleFilters(), n: () => this.turn("next"),
      p: () => this.turn("previous"),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  togglePause() { this.puller.pause(!this.puller.paused); }

  toggleFilters() {
    const row = this.head.querySelector(".hw-filters");
    if (!row) return;
    row.hidden = !row.hidden;
    this.filterButton.setAttribute("aria-expanded", String(!row.hidden));
    if (!row.hidden) return row.querySelector("input").focus();
    if (!this.filters.size) return;
    this.filters.clear();
    for (const input of row.querySelectorAll("input")) input.value = "";
    this.restart();
  }

  turn(where) {
    if (where === "next" && this.next) {
      this.pages.push(this.next);
      this.start += this.rows.length;
    } else if (where === "previous" && this.pages.length > 1) {
      this.pages.pop();
      this.start = Math.max(0, this.start - this.request().limit);
    } else if (where === "first") {
      this.pages = [null];
    } else return;
    if (this.pages.length === 1) this.start = 0;
    this.fresh = true;
    this.next = null;
    this.puller.change();
  }

  restart() {
    this.pages = [null];
    this.start = 0;
    this.fresh = true;
    this.puller.change();
  }

  // none -> ascending -> descending -> none; with shift held, one more sort column.
  sortBy(column, more) {
    const now = this.sort.find((each) => each.column === column);
    const others = more ? this.sort.filter((each) => each.column !== column) : [];
    const then = !now ? [{ column, descending: false }] : now.descending ? [] : [{ column, descending: true }];
    this.sort = [...others, ...then];
    this.showSort();
    this.restart();
  }

  show(reply) {
    this.message.hidden = !reply.error;
    if (reply.error) {
      this.message.textContent = [reply.error.what, reply.error.todo].filter(Boolean).join(" ");
      return this.showState();
    }
    if (reply.position !== undefined) {
      this.root.dataset.position = reply.position;
      this.position.textContent = `position ${grouped(reply.position)}`;
      this.position.title = reply.time ? `committed ${reply.time}` : "";
    }
    this.root.dataset.version = reply.version;
    if (!reply.unchanged) this.showRows(reply);
    this.root.dataset.ready = "1";
    this.showState();
  }

  showRows(reply) {
    const names = JSON.stringify(reply.columns);
    if (names !== this.names) {
      this.names = names;
      this.columns = reply.columns;
      this.showHead();
      this.fresh = true;
    }
    this.beat = !this.beat;
    const matched = this.fresh ? null : matchRows(this.rows, reply.rows);
    const flash = !this.fresh && this.rows.length > 0;
    this.patch(reply.rows, matched, flash);
    this.fresh = false;
    this.rows = reply.rows;
    this.next = reply.next_key;
    this.root.dataset.rows = reply.total;
    this.dot.dataset.beat = this.beat ? "a" : "b";
    this.total.textContent = `${grouped(reply.total)} ${reply.total === "1" ? "row" : "rows"}`;
    const last = this.start + reply.rows.length;
    this.range.textContent = reply.rows.length
      ? `${grouped(this.start + 1)}\u2013${grouped(last)} of ${grouped(reply.total)}` : "no rows";
    this.note.textContent = reply.cut ? `${grouped(reply.cut)} long cells cut` : "";
    this.firstButton.disabled = this.previousButton.disabled = this.pages.length === 1;
    this.nextButton.disabled = !this.next;
  }

  // Rows keep their elements; only text that differs is written.
  patch(rows, matched, flash) {
    const tint = this.beat ? "a" : "b"; // two names, so that a cell changing twice in a row flashes twice
    while (this.cells.length > rows.length) { this.cells.pop(); this.body.lastChild.remove(); }
    while (this.cells.length < rows.length) {
      const line = this.body.insertRow();
      this.cells.push(this.columns.map((column) => {
        const cell = line.insertCell();
        if (column.align === "right") cell.className = "hw-right";
        return cell;
      }));
    }
    rows.forEach((row, r) => row.forEach((value, c) => {
      const cell = this.cells[r][c];
      const shown = value === null ? "NULL" : value;
      if (cell.textContent !== shown) cell.textContent = shown;
      cell.classList.toggle("hw-null", value === null);
      const before = matched && matched[r];
      if (flash && (before ? before[c] !== value : matched !== null || this.differs(r, c, value))) {
        cell.dataset.changed = tint;
      } else delete cell.dataset.changed;
    }));
  }

  differs(r, c, value) { return r >= this.rows.length || this.rows[r][c] !== value; }

  showHead() {
    this.head.replaceChildren();
    this.body.replaceChildren();
    this.cells = [];
    const titles = this.head.insertRow();
    const filters = this.head.insertRow();
    filters.className = "hw-filters";
    filters.hidden = !this.filters.size;
    for (const column of this.columns) {
      const cell = make("th", column.align === "right" ? "hw-right" : "");
      cell.scope = "col";
      cell.dataset.column = column.name;
      const label = button("", `Sort by ${column.name} (shift adds)`, (event) => this.sortBy(column.name, event.shiftKey));
      label.className = "hw-sort";
      label.append(make("span", "hw-name", column.name), make("span", "hw-arrow"));
      cell.append(label, make("span", "hw-type", column.type.toLowerCase()));
      titles.append(cell);
      filters.append(this.filterCell(column));
    }
    this.showSort();
  }

  filterCell(column) {
    const cell = make("th");
    const input = make("input", "hw-input");
    input.type = "search";
    input.placeholder = column.align === "right" ? "> 10" : "contains";
    input.title = "text it contains, or > 10, <= 10, = x, != x, null, not null";
    input.setAttribute("aria-label", `filter ${column.name}`);
    input.value = this.filters.get(column.name) || "";
    let timer = null;
    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        if (input.value.trim()) this.filters.set(column.name, input.value);
        else this.filters.delete(column.name);
        this.restart();
      }, 250);
    });
    input.addEventListener("keydown", (event) => event.stopPropagation());
    cell.append(input);
    return cell;
  }

  showSort() {
    for (const cell of this.head.querySelectorAll("th[data-column]")) {
      const place = this.sort.findIndex((each) => each.column === cell.dataset.column);
      const sort = this.sort[place];
      cell.setAttribute("aria-sort", !sort ? "none" : sort.descending ? "descending" : "ascending");
      const rank = this.sort.length > 1 && sort ? String(place + 1) : "";
      cell.querySelector(".hw-arrow").textContent = !sort ? "" : (sort.descending ? "\u2193" : "\u2191") + rank;
    }
  }

  showState() {
    const { puller } = this;
    if (!puller) return;
    const { state } = puller;
    if (this.root.dataset.state !== state) {
      this.root.dataset.state = state;
      this.stateText.textContent = STATES[state];
      if (state === "lost") this.showLost();
    }
    this.age.textContent = puller.answered === null ? "" : `updated ${ago(Date.now() - puller.answered)}`;
    this.pauseButton.textContent = puller.paused ? "resume" : "pause";
    this.pauseButton.setAttribute("aria-pressed", String(puller.paused));
    this.pauseButton.disabled = this.every.disabled = this.filterButton.disabled = state === "closed";
  }

  showLost() {
    this.message.hidden = false;
    this.message.replaceChildren(
      make("span", "", "The kernel does not answer: it is busy, or it was restarted. Then run the cell again. "),
      button("ask again", "Send the request once more", () => this.puller.retry()),
    );
  }

  watchVisibility() {
    this.onScreen = false;
    const update = () => this.puller.see(this.onScreen && !document.hidden);
    this.observer = new IntersectionObserver((entries) => {
      this.onScreen = entries[entries.length - 1].isIntersecting;
      update();
    });
    this.observer.observe(this.root);
    this.onVisibility = update;
    document.addEventListener("visibilitychange", update);
  }

  dispose() {
    clearInterval(this.clock);
    this.observer.disconnect();
    document.removeEventListener("visibilitychange", this.onVisibility);
    this.puller.close();
  }
}

function render({ model, el }) {
  const root = make("div");
  el.append(root);
  const table = new Table(model, root);
  return () => table.dispose();
}

export default { render };
