// The schema browser: names on the left, by source; columns, versions and readers of the chosen one on the right.

const SEARCH_AFTER_MS = 200;
const WAITS = ["creating", "waiting", "copying"]; // states that go by themselves

// To the clipboard; where the page may not write there, by a field that is selected and copied.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = make("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

class Schema extends Panel {
  static label = "schema browser";
  static help = "tables, topics and views; / searches, arrows move, enter opens";

  begin() {
    this.search = "";
    this.chosen = this.model.get("selection") || "";
    this.folded = new Set(); // groups that are closed
    this.items = [];
    this.timer = null;
    this.onSelection = () => this.choose(this.model.get("selection") || "", false);
    this.model.on("change:selection", this.onSelection);
  }

  request() { return { op: "browse", search: this.search, chosen: this.chosen }; }

  actions() { return { "/": () => this.field.focus() }; }

  fillFrame(scroll) {
    scroll.classList.add("hw-browser");
    const left = make("div", "hw-names");
    this.field = make("input", "hw-search");
    this.field.type = "search";
    this.field.placeholder = "search names, columns, owners";
    this.field.setAttribute("aria-label", "search names, columns and owners");
    this.field.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => { this.search = this.field.value; this.puller.change(); }, SEARCH_AFTER_MS);
    });
    this.field.addEventListener("keydown", (event) => {
      event.stopPropagation(); // a notebook acts on single keys
      if (event.key === "ArrowDown") this.step(event, 1);
    });
    this.tree = make("div", "hw-tree");
    this.tree.setAttribute("role", "group");
    this.tree.setAttribute("aria-label", "names");
    this.tree.addEventListener("keydown", (event) => this.moveBy(event));
    left.append(this.field, this.tree);
    this.detail = make("div", "hw-about");
    this.detail.setAttribute("role", "region");
    this.detail.setAttribute("aria-label", "what is chosen");
    scroll.append(left, this.detail);
  }

  moveBy(event) {
    if (event.key === "ArrowDown") this.step(event, 1);
    else if (event.key === "ArrowUp") this.step(event, -1);
    else if (event.key === "/") { event.preventDefault(); event.stopPropagation(); this.field.focus(); }
  }

  step(event, by) {
    const all = [...this.tree.querySelectorAll("button")];
    const next = all[all.indexOf(document.activeElement) + by];
    event.preventDefault();
    event.stopPropagation();
    if (next) next.focus();
    else if (by < 0) this.field.focus();
  }

  fill(reply) {
    this.items = reply.items;
    this.total.textContent = `${grouped(reply.count)} ${reply.count === "1" ? "name" : "names"}`;
    this.root.dataset.names = reply.count;
    const key = JSON.stringify([reply.items, reply.count]);
    if (key !== this.shown) {
      this.shown = key;
      this.showTree(Number(reply.count));
    }
    this.markChosen();
    this.showAbout(reply.chosen);
  }

  showTree(count) {
    const held = this.tree.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.tree.replaceChildren();
    const groups = new Map();
    for (const item of this.items) groups.set(item.group, [...(groups.get(item.group) || []), item]);
    for (const [name, items] of groups) this.tree.append(this.group(name, items));
    if (!this.items.length) this.tree.append(make("div", "hw-dim hw-line", this.search ? "nothing has that in it" : "nothing to read yet"));
    if (count > this.items.length) {
      this.tree.append(make("div", "hw-dim hw-line", `${grouped(count - this.items.length)} more: search for them`));
    }
    if (held) this.tree.querySelector(`button[data-key="${CSS.escape(held)}"]`)?.focus();
  }

  group(name, items) {
    const root = make("div", "hw-group");
    const list = make("div", "hw-members");
    const head = button("", "Open or close", () => {
      if (this.folded.has(name)) this.folded.delete(name);
      else this.folded.add(name);
      fold();
    });
    head.className = "hw-node hw-group-head";
    head.dataset.key = `group ${name}`;
    const mark = make("span", "hw-fold");
    head.append(mark, make("span", "hw-node-name", name), make("span", "hw-dim", String(items.length)));
    const fold = () => {
      const folded = this.folded.has(name);
      mark.textContent = folded ? "\u25b8" : "\u25be";
      head.setAttribute("aria-expanded", String(!folded));
      list.hidden = folded;
    };
    fold();
    list.append(...items.map((item) => this.node(item)));
    root.append(head, list);
    return root;
  }

  node(item) {
    const node = button("", item.description || item.name, () => this.choose(item.name === this.chosen ? "" : item.name, true));
    node.className = "hw-node";
    node.dataset.key = item.name;
    const own = item.name.startsWith(`${item.group}.`) ? item.name.slice(item.group.length + 1) : item.name;
    node.append(make("span", `hw-kind hw-${item.kind}`, item.kind), make("span", "hw-node-name", own));
    if (item.state !== "live") node.append(make("span", WAITS.includes(item.state) ? "hw-waits" : "hw-trouble", item.state));
    node.append(make("span", "hw-dim", `${item.columns}`));
    node.setAttribute("aria-label", `${item.kind} ${item.name}, ${item.columns} columns`);
    if (item.hits.length) {
      const more = item.more_hits ? `, ${item.more_hits} more` : "";
      node.append(make("span", "hw-hits", item.hits.join(", ") + more));
    }
    return node;
  }

  markChosen() {
    for (const node of this.tree.querySelectorAll("button[data-key]")) {
      if (!node.classList.contains("hw-group-head")) node.setAttribute("aria-pressed", String(node.dataset.key === this.chosen));
    }
  }

  choose(name, byPerson) {
    if (name === this.chosen) return;
    this.chosen = name;
    if (byPerson) {
      this.model.set("selection", name);
      this.model.save_changes();
    }
    this.markChosen();
    this.puller.change();
  }

  // ---- what is chosen

  showAbout(about) {
    const key = JSON.stringify([about, this.items.find((each) => each.name === this.chosen)]);
    if (key === this.aboutShown) return;
    this.aboutShown = key;
    if (!about) {
      this.detail.replaceChildren(make("div", "hw-dim hw-line", "Choose a name to see its columns, versions and readers."));
      return;
    }
    const item = this.items.find((each) => each.name === about.name);
    const sql = item ? item.sql : about.name;
    const title = make("div", "hw-about-head");
    title.append(make("strong", "", about.name), this.copier(sql, "copy name", `Copy ${sql} to paste it into SQL`));
    if (about.missing) {
      this.detail.replaceChildren(title, make("div", "hw-dim hw-line", "There is nothing of this name at this position, or it has published nothing yet."));
      return;
    }
    const parts = [title];
    if (item) {
      const facts = [item.kind, item.state === "live" ? "" : item.state, item.owner ? `owner ${item.owner}` : "",
        item.key.length ? `key ${item.key.join(", ")}` : "no key"];
      parts.push(make("div", "hw-dim hw-line", facts.filter(Boolean).join(" \u00b7 ")));
      if (item.description) parts.push(make("div", "hw-line", item.description));
    }
    parts.push(this.columnTable(about), this.links("read by", about.readers), this.links("reads", about.reads));
    if (about.definition) {
      const text = make("details", "hw-line");
      text.append(make("summary", "", "definition"), make("pre", "", about.definition));
      parts.push(text);
    }
    parts.push(this.history(about));
    this.detail.replaceChildren(...parts.filter(Boolean));
  }

  copier(text, label, title) {
    const made = button(label, title, async () => {
      await copy(text);
      made.textContent = "copied";
      this.copied = text;
      setTimeout(() => { made.textContent = label; }, 1500);
    });
    made.classList.add("hw-copy");
    return made;
  }

  columnTable(about) {
    const table = make("table", "hw-list hw-columns");
    table.setAttribute("aria-label", `columns of ${about.name}`);
    const described = about.columns.some((each) => each.description);
    const head = table.createTHead().insertRow();
    for (const name of ["column", "type", "", ...(described ? ["description"] : []), ""]) {
      const cell = make("th", "", name);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const column of about.columns) {
      const line = body.insertRow();
      line.dataset.column = column.name;
      line.insertCell().append(make("span", "hw-column", column.name));
      const type = line.insertCell();
      type.append(make("code", "", column.type.toLowerCase()));
      if (column.source_type && column.source_type.toLowerCase() !== column.type.toLowerCase()) type.title = `at the source: ${column.source_type}`;
      const marks = [column.key ? "key" : "", column.nullable ? "" : "not null", column.default ? `default ${column.default}` : ""];
      line.insertCell().append(make("span", "hw-dim", marks.filter(Boolean).join(" \u00b7 ")));
      if (described) line.insertCell().append(make("span", "hw-dim hw-words", column.description));
      line.insertCell().append(this.copier(column.sql, "copy", `Copy ${column.sql}`));
    }
    if (about.more_columns) {
      const cell = body.insertRow().insertCell();
      cell.colSpan = 5;
      cell.textContent = `${grouped(about.more_columns)} more columns`;
    }
    return table;
  }

  links(label, names) {
    if (!names.length) return null;
    const line = make("div", "hw-line");
    line.append(make("span", "hw-dim", `${label} `));
    names.forEach((name, place) => {
      const full = name.startsWith("view ") ? `views.${name.slice(5)}` : name.startsWith("job ") ? null : name;
      if (place) line.append(", ");
      if (!full) line.append(name);
      else {
        const link = button(name, `Show ${full}`, () => this.choose(full, true));
        link.className = "hw-link";
        line.append(link);
      }
    });
    return line;
  }

  history(about) {
    if (about.versions.length < 2) {
      const only = about.versions[0];
      return only ? make("div", "hw-dim hw-line", `schema version ${only.number}, since commit ${grouped(only.commit)} (${moment(only.time)}); ${only.verdict}`) : null;
    }
    const root = make("details", "hw-line hw-history");
    root.open = Boolean(this.historyOpen);
    root.addEventListener("toggle", () => { this.historyOpen = root.open; });
    root.append(make("summary", "", `${about.versions.length + about.more_versions} schema versions`));
    for (const version of about.versions) {
      const part = make("div", "hw-version");
      part.dataset.version = version.number;
      const head = make("div", "");
      head.append(make("strong", "", `version ${version.number}`),
        make("span", "hw-dim", ` since commit ${grouped(version.commit)} (${moment(version.time)}) `),
        make("span", version.accepted ? "hw-accepted" : "hw-trouble", version.verdict));
      part.append(head, ...version.changes.map((text) => make("div", "hw-change", text)));
      root.append(part);
    }
    if (about.more_versions) root.append(make("div", "hw-dim", `${grouped(about.more_versions)} older ones`));
    return root;
  }

  dispose() {
    clearTimeout(this.timer);
    this.model.off("change:selection", this.onSelection);
    super.dispose();
  }
}

export default panel(Schema);
