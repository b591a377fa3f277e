// The live table: pages by key, sorted and filtered in the engine.

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

class Table extends Panel {
  static label = "live table";
  static help = "rows; space pauses, f filters, n and p turn pages";

  begin() {
    this.columns = [];
    this.rows = [];
    this.cells = [];
    this.sort = [];
    this.filters = new Map(); // column -> text as typed
    this.pages = [null]; // the key after which each page up to this one starts
    this.next = null;
    this.start = 0; // rows before this page
  }

  request() {
    const filters = [];
    for (const [column, text] of this.filters) {
      const filter = parseFilter(column, text);
      if (filter) filters.push(filter);
    }
    return {
      op: "page", sort: this.sort, filters, after_key: this.pages[this.pages.length - 1],
      limit: this.model.get("_page_rows") || 50,
    };
  }

  tools() {
    this.filterButton = button("filter", "Show or hide a filter per column (f)", () => this.toggleFilters());
    this.filterButton.setAttribute("aria-expanded", "false");
    return [this.filterButton];
  }

  actions() {
    return { f: () => this.toggleFilters(), n: () => this.turn("next"), p: () => this.turn("previous") };
  }

  fillFrame(scroll) {
    this.table = make("table", "hw-table");
    this.head = this.table.createTHead();
    this.body = this.table.createTBody();
    scroll.append(this.table);
  }

  foot(foot) {
    this.range = make("span", "hw-range");
    this.note = make("span", "hw-note");
    this.firstButton = button("first", "First page", () => this.turn("first"));
    this.previousButton = button("previous", "Previous page (p)", () => this.turn("previous"));
    this.nextButton = button("next", "Next page (n)", () => this.turn("next"));
    const query = make("details", "hw-query");
    query.append(make("summary", "", "SQL"), make("pre", "", this.model.get("_sql") || ""));
    foot.append(this.range, this.note, make("span", "hw-gap"), this.firstButton, this.previousButton,
      this.nextButton, query);
    return true;
  }

  settled(state) { this.filterButton.disabled = state === "closed"; }

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

  fill(reply) {
    const names = JSON.stringify(reply.columns);
    if (names !== this.names) {
      this.names = names;
      this.columns = reply.columns;
      this.showHead();
      this.fresh = true;
    }
    const matched = this.fresh ? null : matchRows(this.rows, reply.rows);
    const flash = !this.fresh && this.rows.length > 0;
    this.patch(reply.rows, matched, flash);
    this.fresh = false;
    this.rows = reply.rows;
    this.next = reply.next_key;
    this.root.dataset.rows = reply.total;
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
}

export default panel(Table);
