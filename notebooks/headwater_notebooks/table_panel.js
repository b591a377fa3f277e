// The live table: pages by key, sorted, filtered and searched in the engine; its rows, or the log of what changed in them.

const PAGE_ROWS = [25, 50, 100, 200, 500];
const SELECTED_MAX = 100; // as in the kernel
const TYPING_MS = 250; // after the last key: a filter that is being typed is not asked for letter by letter
const SIGNS = { c: "+", r: "+", u: "~", d: "\u2212", t: "\u00d7" };
const CHANGES = { "+": "added", "~": "changed", "\u2212": "removed", "\u00d7": "all removed" };

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

// "> 10", "!= x", "~ x" (contains), "null", "not null"; anything else means "contains".
function parseFilter(column, text) {
  const trimmed = text.trim();
  if (!trimmed || /^(<=|>=|!=|<>|=|<|>|~)$/.test(trimmed)) return null; // not typed to its end yet
  if (/^(is )?null$/i.test(trimmed)) return { column, op: "null" };
  if (/^(is )?not null$/i.test(trimmed)) return { column, op: "not null" };
  const [, op, value] = /^(<=|>=|!=|<>|=|<|>|~)\s*(.*)$/s.exec(trimmed) || [null, "~", trimmed];
  return { column, op: op === "<>" ? "!=" : op === "~" ? "contains" : op, value };
}

// Several of one column: "> 10 and <= 20".
function parseFilters(column, text) {
  const parts = text.split(/\s+and\s+(?=<=|>=|!=|<>|=|<|>|~|not null|null)/i);
  return parts.map((part) => parseFilter(column, part)).filter(Boolean);
}

function filterText({ op, value }) {
  if (op === "null" || op === "not null") return op;
  if (op !== "contains") return `${op} ${value}`;
  return same(parseFilters("", value), [{ column: "", op, value }]) ? value : `~ ${value}`;
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

class Table extends Panel {
  static label = "live table";
  static help = "rows; arrows choose, space pauses, slash searches, f filters, n and p turn pages, l shows changes, h history";

  begin() {
    const { model } = this;
    this.columns = [];
    this.rows = [];
    this.cells = [];
    this.keyColumns = [];
    this.noLog = "";
    this.limit = model.get("_page_rows") || 50;
    this.of = null; // the key whose history is shown
    this.kept = {}; // what is shown -> its filters, sort and search, for when it is shown again
    this.place = { key: null, backwards: false };
    this.start = 0; // rows before this page
    this.adopt();
    this.heard = {
      "change:filters": () => this.hear(), "change:sort": () => this.hear(), "change:search": () => this.hear(),
      "change:show": () => this.hear(), "change:selection": () => this.hearSelection(),
      "change:_turned": () => { this.place = { key: null, backwards: false }; this.puller.turn(); },
    };
    for (const [event, act] of Object.entries(this.heard)) model.on(event, act);
  }

  // ---- what is asked for, here and in the model's public traits

  adopt() {
    const { model } = this;
    this.filters = new Map(); // column -> text as typed
    for (const each of model.get("filters") || []) {
      const before = this.filters.get(each.column);
      this.filters.set(each.column, (before ? `${before} and ` : "") + filterText(each));
    }
    this.sort = model.get("sort") || [];
    this.search = model.get("search") || "";
    this.showing = model.get("show") || "state";
    this.selection = model.get("selection") || [];
  }

  get asked() {
    const filters = [];
    for (const [column, text] of this.filters) filters.push(...parseFilters(column, text));
    return { filters, sort: this.sort, search: this.search };
  }

  request() {
    return {
      op: this.copying ? "sql" : "page", show: this.of ? "history" : this.showing, of: this.of, ...this.asked,
      ...this.place, limit: this.limit,
    };
  }

  hear() {
    if (this.of || this.telling) return; // traits speak of the rows or the log, not of a history
    const { model, asked } = this;
    const told = { filters: model.get("filters") || [], sort: model.get("sort") || [], search: model.get("search") || "" };
    if (same(told, asked) && this.showing === (model.get("show") || "state")) return;
    this.adopt();
    this.showAsked();
    this.first();
    this.puller.turn();
  }

  tell(traits) {
    const news = Object.entries(traits).filter(([name, value]) => !same(this.model.get(name), value));
    if (!news.length) return;
    this.telling = true;
    for (const [name, value] of news) this.model.set(name, value);
    this.telling = false;
    this.model.save_changes();
  }

  first() {
    this.place = { key: null, backwards: false };
    this.start = 0;
    this.fresh = true;
  }

  // A person asked for something else.
  restart() {
    if (!this.of) this.tell({ ...this.asked, show: this.showing });
    this.first();
    this.puller.change();
  }

  // ---- the frame

  tools() {
    this.searchInput = make("input", "hw-input hw-search");
    this.searchInput.type = "search";
    this.searchInput.placeholder = "search";
    this.searchInput.title = "Text in any column (/)";
    this.searchInput.setAttribute("aria-label", "search all columns");
    this.typed(this.searchInput, (text) => { this.search = text; });
    this.filterButton = button("filter", "Show or hide a filter per column (f)", () => this.toggleFilters());
    this.filterButton.setAttribute("aria-expanded", "false");
    this.logButton = button("changes", "The log of what changed, or the rows as they stand (l)", () => this.toggleLog());
    return [this.searchInput, this.filterButton, this.logButton];
  }

  actions() {
    return {
      f: () => this.toggleFilters(), n: () => this.turn("next"), p: () => this.turn("previous"), l: () => this.toggleLog(),
      "/": () => { this.searchInput.focus(); this.searchInput.select(); }, h: () => this.openHistory(),
      ArrowDown: (event) => this.step(1, event.shiftKey), ArrowUp: (event) => this.step(-1, event.shiftKey),
      Escape: () => { if (this.of) this.closeHistory(); else this.select([]); },
    };
  }

  build() {
    super.build();
    this.crumb = make("div", "hw-crumb");
    this.crumb.setAttribute("role", "status");
    this.crumb.hidden = true;
    this.scroll.before(this.crumb);
    this.showAsked();
  }

  fillFrame(scroll) {
    this.table = make("table", "hw-table");
    this.table.setAttribute("role", "grid");
    this.table.setAttribute("aria-multiselectable", "true");
    this.head = this.table.createTHead();
    this.body = this.table.createTBody();
    this.body.addEventListener("click", (event) => this.pick(event));
    scroll.append(this.table);
  }

  foot(foot) {
    this.range = make("span", "hw-range");
    this.note = make("span", "hw-note");
    this.pageRows = make("select", "hw-select");
    this.pageRows.setAttribute("aria-label", "rows of a page");
    for (const rows of [...new Set([...PAGE_ROWS, this.limit])].sort((a, b) => a - b)) {
      this.pageRows.append(new Option(`${rows} rows`, rows));
    }
    this.pageRows.value = this.limit;
    this.pageRows.addEventListener("change", () => { this.limit = Number(this.pageRows.value); this.restart(); });
    this.firstButton = button("first", "First page", () => this.turn("first"));
    this.previousButton = button("previous", "Previous page (p)", () => this.turn("previous"));
    this.nextButton = button("next", "Next page (n)", () => this.turn("next"));
    this.lastButton = button("last", "Last page", () => this.turn("last"));
    this.historyButton = button("history", "All versions of the chosen row (h)", () => this.openHistory());
    this.copyButton = button("copy SQL", "Copy the SQL of all that is shown here, as a cell to run", () => this.copy());
    const query = make("details", "hw-query");
    this.paramsText = make("div", "hw-params");
    query.append(make("summary", "", "SQL"), make("pre", "", this.model.get("_sql") || ""), this.paramsText);
    foot.append(this.range, this.note, make("span", "hw-gap"), this.historyButton, this.pageRows, this.firstButton,
      this.previousButton, this.nextButton, this.lastButton, this.copyButton, query);
    return true;
  }

  settled(state) {
    const closed = state === "closed";
    const keyed = this.keyColumns.length > 0;
    this.filterButton.disabled = this.searchInput.disabled = this.logButton.disabled = this.copyButton.disabled = closed;
    this.pageRows.disabled = closed;
    this.historyButton.hidden = !keyed || this.of !== null;
    this.historyButton.disabled = closed || this.selection.length !== 1;
    this.logButton.setAttribute("aria-pressed", String(this.showing === "log"));
  }

  // A field that acts a moment after the last key, and keeps its keys to itself; Escape goes back to the rows.
  typed(input, act) {
    let timer = null;
    input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => { act(input.value.trim()); this.restart(); }, TYPING_MS);
    });
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape" || event.key === "Enter") this.scroll.focus();
    });
  }

  // Inputs and arrows as they are asked for, whoever asked.
  showAsked() {
    this.searchInput.value = this.search;
    for (const input of this.head.querySelectorAll(".hw-filters input")) {
      input.value = this.filters.get(input.dataset.column) || "";
    }
    const row = this.head.querySelector(".hw-filters");
    if (row && this.filters.size) {
      row.hidden = false;
      this.filterButton.setAttribute("aria-expanded", "true");
    }
    this.showSort();
  }

  toggleFilters() {
    const row = this.head.querySelector(".hw-filters");
    if (!row) return;
    row.hidden = !row.hidden;
    this.filterButton.setAttribute("aria-expanded", String(!row.hidden));
    if (!row.hidden) return row.querySelector("input").focus();
    if (!this.filters.size) return;
    this.filters.clear();
    this.showAsked();
    this.restart();
  }

  turn(where) {
    const { place } = this;
    if (where === "next" && this.next) {
      this.place = { key: this.next, backwards: false };
      this.start += this.rows.length;
    } else if (where === "last" && this.next) {
      this.place = { key: null, backwards: true };
    } else if (where === "previous" && this.previous && this.start > this.limit) {
      this.place = { key: this.previous, backwards: true };
      this.start -= this.limit;
    } else if ((where === "previous" || where === "first") && (place.key || place.backwards)) {
      this.first();
    } else return;
    this.fresh = true;
    this.next = this.previous = null;
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

  // ---- rows or their log, and the history of one

  // What is shown next has filters, sort and search of its own: its columns are others.
  turnTo(showing, of) {
    this.kept[this.of ? "history" : this.showing] = { filters: this.filters, sort: this.sort, search: this.search };
    [this.showing, this.of] = [showing, of];
    const before = !of && this.kept[showing];
    Object.assign(this, before || { filters: new Map(), sort: [], search: "" });
    this.select([]);
    this.showAsked();
    this.restart();
  }

  toggleLog() {
    if (this.noLog) return this.say(`No change log: ${this.noLog}. A view has one: make a view of this query.`);
    this.say("");
    this.turnTo(this.showing === "log" ? "state" : "log", null);
  }

  openHistory() {
    const [row] = this.selection;
    if (this.of || this.selection.length !== 1 || !this.keyColumns.length) return;
    const of = this.keyColumns.map((name) => row[name]);
    const named = this.keyColumns.map((name, place) => `${name} = ${of[place] === null ? "NULL" : of[place]}`).join(", ");
    this.opened = row;
    this.turnTo(this.showing, of);
    this.say(`history of ${named}`, button("back", "Back to the rows (escape)", () => this.closeHistory()));
  }

  closeHistory() {
    const row = this.opened;
    this.say("");
    this.turnTo(this.showing, null);
    this.select([row]);
    this.scroll.focus();
  }

  // One line above the rows; empty, it goes.
  say(text, ...more) {
    this.crumb.hidden = !text;
    const close = () => button("close", "Close this line", () => this.say(""));
    this.crumb.replaceChildren(make("span", "", text), ...(more.length ? more : [close()]));
  }

  // ---- the SQL of what is seen

  copy() {
    this.copying = true;
    this.puller.change();
  }

  show(reply) {
    if (reply.sql === undefined) {
      if (reply.error) this.copying = false;
      return super.show(reply);
    }
    this.copying = false;
    this.message.hidden = true;
    this.copied(reply.sql);
    this.showState();
  }

  async copied(text) {
    this.root.dataset.sql = text;
    try {
      await navigator.clipboard.writeText(text);
      this.copyButton.textContent = "copied";
      setTimeout(() => { this.copyButton.textContent = "copy SQL"; }, 1500);
    } catch { // not allowed here, or no secure page
      const area = make("textarea", "hw-copy");
      area.readOnly = true;
      area.rows = Math.min(10, text.split("\n").length);
      area.value = text;
      area.setAttribute("aria-label", "SQL of what is shown");
      area.addEventListener("keydown", (event) => event.stopPropagation());
      this.say("The browser does not let a page copy here. Copy it yourself:", area,
        button("close", "Close this line", () => this.say("")));
      area.focus();
      area.select();
    }
  }

  // ---- an answer

  fill(reply) {
    const names = JSON.stringify(reply.columns);
    if (names !== this.names) {
      this.names = names;
      this.columns = reply.columns;
      this.showHead();
      this.fresh = true;
    }
    [this.keyColumns, this.noLog] = [reply.key, reply.no_log];
    const matched = this.fresh ? null : matchRows(this.rows, reply.rows);
    const flash = !this.fresh && this.rows.length > 0;
    if (this.fresh) this.scroll.scrollTop = 0;
    this.patch(reply.rows, matched, flash);
    this.fresh = false;
    this.rows = reply.rows;
    [this.next, this.previous] = [reply.next_key, reply.previous_key];
    if (this.place.backwards && !this.place.key) this.start = Math.max(0, Number(reply.total) - reply.rows.length);
    else if (this.place.backwards && !this.previous) this.start = 0;
    this.root.dataset.rows = reply.total;
    const word = this.of ? "version" : this.showing === "log" ? "change" : "row";
    this.total.textContent = `${grouped(reply.total)} ${word}${reply.total === "1" ? "" : "s"}`;
    this.showRange(reply);
    this.firstButton.disabled = this.previousButton.disabled = !this.place.key && !this.place.backwards;
    this.nextButton.disabled = this.lastButton.disabled = !this.next;
    const params = Object.entries(reply.params);
    this.paramsText.textContent = params.map(([name, value]) => `$${name} = ${value}`).join("   ");
    this.showSelection();
    this.keepWidths();
  }

  showRange(reply) {
    const last = this.start + reply.rows.length;
    this.range.textContent = reply.rows.length
      ? `${grouped(this.start + 1)}\u2013${grouped(last)} of ${grouped(reply.total)}` : "no rows";
    this.note.textContent = reply.cut ? `${grouped(reply.cut)} long cells cut` : "";
  }

  // Rows keep their elements; only text that differs is written.
  patch(rows, matched, flash) {
    const tint = this.beat ? "a" : "b"; // two names, so that a cell changing twice in a row flashes twice
    while (this.cells.length > rows.length) { this.cells.pop(); this.body.lastChild.remove(); }
    const made = document.createDocumentFragment();
    while (this.cells.length < rows.length) {
      const line = make("tr");
      this.cells.push(this.columns.map((column) => {
        const cell = line.insertCell();
        if (column.align === "right") cell.className = "hw-right";
        else cell.dir = "auto";
        return cell;
      }));
      made.append(line);
    }
    this.body.append(made);
    const operation = this.showing === "log" && !this.of ? this.columns.findIndex((c) => c.name === "_op" || c.name === "_weight") : -1;
    rows.forEach((row, r) => {
      this.sign(this.cells[r][0], operation < 0 ? null : row[operation]);
      row.forEach((value, c) => {
        const cell = this.cells[r][c];
        this.write(cell, value);
        const before = matched && matched[r];
        if (flash && (before ? before[c] !== value : matched !== null || this.differs(r, c, value))) {
          cell.dataset.changed = tint;
        } else if (cell.dataset.changed) delete cell.dataset.changed;
      });
    });
  }

  // A line break would make the row taller than a screen: it is shown as a sign. The tooltip has the text as it is.
  write(cell, value) {
    const shown = value === null ? "NULL" : value.replace(/\r\n|[\n\r\u2028\u2029]/g, "\u21b5");
    if (cell.textContent !== shown) {
      cell.textContent = shown;
      if (value !== null && (value.length > 40 || shown !== value)) cell.title = value;
      else if (cell.title) cell.removeAttribute("title");
    }
    if (cell.classList.contains("hw-null") !== (value === null)) cell.classList.toggle("hw-null", value === null);
  }

  sign(cell, operation) {
    const sign = operation === null ? undefined : SIGNS[operation] || (operation.startsWith("-") ? "\u2212" : "+");
    if (cell.dataset.sign === sign) return;
    if (sign === undefined) delete cell.dataset.sign;
    else cell.dataset.sign = sign;
    cell.parentNode.title = CHANGES[sign] || "";
  }

  differs(r, c, value) { return r >= this.rows.length || this.rows[r][c] !== value; }

  // Columns only grow while the same columns are shown, so that nothing moves under the reader's eyes.
  keepWidths() {
    const cells = [...this.head.rows[0].cells];
    const widths = cells.map((cell) => cell.offsetWidth);
    cells.forEach((cell, c) => {
      if (widths[c] <= (this.widths[c] || 0)) return;
      this.widths[c] = widths[c];
      cell.style.minWidth = `${widths[c]}px`;
    });
  }

  showHead() {
    this.head.replaceChildren();
    this.body.replaceChildren();
    this.cells = [];
    this.widths = [];
    const titles = this.head.insertRow();
    const filters = this.head.insertRow();
    filters.className = "hw-filters";
    filters.hidden = !this.filters.size;
    this.filterButton.setAttribute("aria-expanded", String(!filters.hidden));
    for (const column of this.columns) {
      const cell = make("th", column.align === "right" ? "hw-right" : "");
      cell.scope = "col";
      cell.dataset.column = column.name;
      const label = button("", `Sort by ${column.name} (shift adds)`, (event) => this.sortBy(column.name, event.shiftKey));
      label.className = "hw-sort";
      const name = make("span", "hw-name", column.name);
      name.dir = "auto";
      label.append(name, make("span", "hw-arrow"));
      const type = make("span", "hw-type", column.type.toLowerCase());
      type.title = column.type;
      cell.append(label, type);
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
    input.title = "text it contains, or > 10, <= 10, = x, != x, null, not null; > 10 and < 20";
    input.setAttribute("aria-label", `filter ${column.name}`);
    input.dataset.column = column.name;
    input.value = this.filters.get(column.name) || "";
    this.typed(input, (text) => { if (text) this.filters.set(column.name, text); else this.filters.delete(column.name); });
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

  // ---- chosen rows: by their key where they have one, else by all their cells

  record(r) { return Object.fromEntries(this.columns.map((column, c) => [column.name, this.rows[r][c]])); }

  isChosen(row) {
    const place = new Map(this.columns.map((column, c) => [column.name, c]));
    const keyed = this.keyColumns.length && this.showing === "state" && !this.of;
    return this.selection.some((chosen) => {
      const names = keyed && this.keyColumns.every((name) => name in chosen) ? this.keyColumns : Object.keys(chosen);
      return names.length > 0 && names.every((name) => place.has(name) && row[place.get(name)] === chosen[name]);
    });
  }

  pick(event) {
    const line = event.target.closest("tr");
    const selected = document.getSelection();
    if (!line || (selected && String(selected) && !event.shiftKey)) return; // text is being marked
    const r = line.sectionRowIndex;
    const row = this.record(r);
    if (event.shiftKey) {
      selected.removeAllRanges();
      return this.choose(r, true);
    }
    this.anchor = this.cursor = r;
    const others = event.ctrlKey || event.metaKey ? this.selection.filter((chosen) => !this.sameRow(chosen, row)) : [];
    const again = this.isChosen(this.rows[r]) && (event.ctrlKey || event.metaKey || this.selection.length === 1);
    this.select(again ? others : [...others, row]);
    this.scroll.focus({ preventScroll: true });
  }

  sameRow(one, other) {
    const keyed = this.keyColumns.length && this.showing === "state" && !this.of;
    return (keyed ? this.keyColumns : Object.keys(other)).every((name) => one[name] === other[name]);
  }

  // Row r, or all rows from the anchor to it.
  choose(r, range) {
    if (!range || this.anchor === undefined) this.anchor = r;
    this.cursor = r;
    const [low, high] = [Math.min(this.anchor, r), Math.min(Math.max(this.anchor, r), this.rows.length - 1)];
    this.select(Array.from({ length: high - low + 1 }, (_, n) => this.record(low + n)));
    this.cells[r][0].parentNode.scrollIntoView({ block: "nearest" });
  }

  step(by, range) {
    if (!this.rows.length) return;
    const from = this.selection.length && this.cursor !== undefined ? this.cursor : by > 0 ? -1 : this.rows.length;
    this.choose(Math.max(0, Math.min(from + by, this.rows.length - 1)), range);
  }

  select(rows) {
    this.selection = rows.slice(0, SELECTED_MAX);
    this.showSelection();
    this.tell({ selection: this.selection });
    this.showState();
  }

  hearSelection() {
    const told = this.model.get("selection") || [];
    if (same(told, this.selection)) return;
    this.selection = told;
    this.showSelection();
    this.showState();
  }

  showSelection() {
    this.rows.forEach((row, r) => {
      const line = this.cells[r] && this.cells[r][0] && this.cells[r][0].parentNode;
      if (line) line.setAttribute("aria-selected", String(this.selection.length > 0 && this.isChosen(row)));
    });
    this.root.dataset.selected = this.selection.length;
  }

  dispose() {
    for (const [event, act] of Object.entries(this.heard)) this.model.off(event, act);
    super.dispose();
  }
}

export default panel(Table);
