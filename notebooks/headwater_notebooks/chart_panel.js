// The chart, and plots above one another (rates): the kernel sends elements with their places, the page patches them in.
// What is left to the page: which point is near, what is chosen, which series are put away.

const NEAR = 8; // pixels within which another series' point is read out together
const DRAG = 4; // pixels that make a press a drag
const TABLE_MAX = 1000; // rows of the table form

// Make `parent` hold these elements, [tag, attributes, children or text], keeping what is there already.
function patch(parent, elements) {
  while (parent.children.length > elements.length) parent.lastElementChild.remove();
  elements.forEach(([tag, attributes, inside], n) => {
    let node = parent.children[n];
    if (!node || node.tagName.toLowerCase() !== tag.toLowerCase()) {
      const made = document.createElementNS(parent.namespaceURI, tag);
      if (node) node.replaceWith(made); else parent.append(made);
      node = made;
    }
    for (const { name } of [...node.attributes]) if (!(name in attributes)) node.removeAttribute(name);
    for (const [name, value] of Object.entries(attributes)) {
      if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
    }
    if (typeof inside !== "string") {
      if (!node.children.length) node.textContent = "";
      patch(node, inside);
    } else if (node.children.length || node.textContent !== inside) node.textContent = inside;
  });
}

const across = (from, to) => (from === to ? from : `${from} to ${to}`);
const SVG = "http://www.w3.org/2000/svg";
const element = (tag, className, parent) => {
  const node = document.createElementNS(SVG, tag);
  if (className) node.setAttribute("class", className);
  parent.append(node);
  return node;
};

class ChartView extends Panel {
  static label = "chart";
  static help = "chart; left and right read points, [ and ] choose from and to, enter a bar, escape clears, space pauses";

  begin() {
    this.hidden = new Set();
    this.log = this.model.get("_log") || false;
    this.window = this.model.get("_window") || "";
    this.reply = null;
    this.series = new Map(); // number -> series
    this.marks = [];
    this.cursor = null; // a mark
    this.drag = null; // where a press began
    this.onTrait = () => this.puller.change();
    for (const name of ["selection", "filters"]) this.model.on(`change:${name}`, this.onTrait);
  }

  request() {
    return {
      op: "chart", width: this.width, height: 280, log: this.log, hidden: [...this.hidden], window: this.window,
      filters: this.model.get("filters") || [], selection: this.model.get("selection") || [],
    };
  }

  tools() {
    this.logButton = button("log", "A logarithmic scale for the values, or a linear one (l)", () => this.toggleLog());
    this.tableButton = button("table", "The points as a table (t)", () => this.toggleTable());
    this.clearButton = button("clear", "Choose nothing (escape)", () => this.choose([]));
    this.logButton.setAttribute("aria-pressed", String(this.log));
    this.tableButton.setAttribute("aria-expanded", "false");
    this.clearButton.hidden = true;
    return [...this.windows(), this.clearButton, this.logButton, this.tableButton];
  }

  // The stretches of time to choose from, where there are any.
  windows() {
    const known = this.model.get("_windows") || [];
    if (!known.length) return [];
    const select = make("select", "hw-select hw-window");
    select.setAttribute("aria-label", "window");
    select.title = "The stretch of time to look at";
    for (const each of [...new Set([this.window, ...known])]) select.append(new Option(`last ${each}`, each));
    select.value = this.window;
    select.addEventListener("change", () => { this.window = select.value; this.puller.change(); });
    return [select];
  }

  actions() {
    return {
      l: () => this.toggleLog(), t: () => this.toggleTable(), Escape: () => this.escape(), Enter: () => this.press(),
      ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1), ArrowUp: () => this.step(-1), ArrowDown: () => this.step(1),
      Home: () => this.step(-Infinity), End: () => this.step(Infinity), "[": () => this.limit(0), "]": () => this.limit(1),
    };
  }

  fillFrame(scroll) {
    const label = this.model.get("_label");
    if (label) this.root.setAttribute("aria-label", label);
    scroll.classList.add("hw-chart");
    const title = this.model.get("_title");
    if (title) scroll.append(make("div", "hw-chart-title", title));
    this.legend = make("div", "hw-legend");
    this.legend.setAttribute("role", "group");
    this.legend.setAttribute("aria-label", "series");
    this.stage = make("div", "hw-stage");
    this.svg = element("svg", "hw-plot", this.stage);
    this.svg.setAttribute("role", "img");
    this.drawn = element("g", "", this.svg);
    this.over = element("g", "hw-over", this.svg);
    this.over.setAttribute("aria-hidden", "true");
    this.tip = make("div", "hw-tip");
    this.tip.setAttribute("role", "status");
    this.tip.hidden = true;
    this.stage.append(this.tip);
    this.table = make("div", "hw-points");
    this.table.hidden = true;
    this.figures = make("div", "hw-figures");
    for (const keys of [this.legend, this.figures]) {
      keys.addEventListener("click", (event) => {
        const key = event.target.closest(".hw-key");
        if (key) this.toggle(key.dataset.name, event.shiftKey);
      });
    }
    scroll.append(this.legend, this.stage, this.figures, this.table);
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    this.svg.addEventListener("pointerleave", () => { if (!this.drag) this.point(null); });
    this.svg.addEventListener("pointerdown", (event) => this.down(event));
    this.svg.addEventListener("pointerup", (event) => this.up(event));
    this.svg.addEventListener("pointercancel", () => { this.drag = null; this.showOver(); });
    this.width = this.measure();
    this.resized = new ResizeObserver(() => {
      const width = this.measure();
      if (width && width !== this.width) { this.width = width; if (this.puller) this.puller.change(); }
    });
    this.resized.observe(scroll);
  }

  // In steps, so that a page that settles does not ask for each pixel.
  measure() { return Math.floor((this.scroll.clientWidth - 20) / 20) * 20; }

  foot(foot) {
    this.notes = make("span", "hw-notes");
    foot.append(this.notes);
    return true;
  }

  settled(state) { this.logButton.disabled = state === "closed"; }

  // ---- what came

  fill(reply) {
    const near = this.cursor && this.keyOf(this.cursor);
    this.reply = reply;
    this.series = new Map(reply.series.map((each) => [each.n, each]));
    this.marks = reply.marks.map(([series, x, y, left, right, point]) => ({ series, x, y, left, right, point }));
    const axis = this.axis;
    this.ordered = [...this.marks].sort((a, b) => a[axis] - b[axis] || a.series - b.series);
    const [width, height] = reply.size;
    for (const [name, value] of [["width", width], ["height", height], ["viewBox", `0 0 ${width} ${height}`],
      ["aria-label", reply.label]]) {
      if (this.svg.getAttribute(name) !== String(value)) this.svg.setAttribute(name, value);
    }
    patch(this.drawn, reply.elements);
    this.showChosen();
    this.showKeys();
    this.total.textContent = reply.extent;
    this.notes.textContent = reply.notes.join(" \u00b7 ");
    this.notes.parentElement.hidden = !reply.notes.length;
    this.root.dataset.points = reply.series.reduce((sum, each) => sum + each.points.length, 0);
    this.showTable();
    this.cursor = near ? this.marks.find((mark) => this.keyOf(mark) === near) || null : null;
    this.showOver();
  }

  get axis() { return this.reply && this.reply.sideways ? "y" : "x"; }
  told(mark) { return this.series.get(mark.series).points[mark.point]; }
  keyOf(mark) { return JSON.stringify([mark.series, this.told(mark)[0]]); }
  get bars() { return Boolean(this.reply && this.reply.choice && this.reply.choice[0] === "="); }

  // Bars that are not chosen step back.
  showChosen() {
    const { chosen } = this.reply;
    const selection = this.model.get("selection") || [];
    this.clearButton.hidden = !selection.length;
    this.root.dataset.chosen = selection.length;
    if (!this.bars) return;
    for (const group of this.drawn.querySelectorAll(".hw-series")) {
      const marks = this.marks.filter((mark) => String(mark.series) === group.dataset.series);
      [...group.children].forEach((bar, n) => {
        if (chosen.length && !chosen.includes(this.told(marks[n])[0])) bar.setAttribute("opacity", "0.35");
      });
    }
  }

  // Names that put series away: above the plot, or in the table of figures where there is one.
  showKeys() {
    const { figures, series } = this.reply;
    this.tableButton.hidden = Boolean(figures);
    patch(this.legend, figures ? [] : series.filter((each) => each.named).map((each) => this.keyFor(each)));
    if (!figures) return;
    const right = (n) => (n ? { class: "hw-right" } : {});
    const rows = figures.rows.map((row) => ["tr", {}, row.cells.map((text, n) => ["td", right(n), n || !row.key ? text
      : [this.keyFor(row.key)]])]);
    patch(this.figures, [["table", { class: "hw-table" }, [
      ["thead", {}, [["tr", {}, figures.heads.map((text, n) => ["th", { scope: "col", ...right(n) }, text])]]],
      ["tbody", {}, rows],
    ]]]);
  }

  keyFor({ name, colour, dash }) {
    return ["button", {
      type: "button", class: "hw-key", "data-name": name, "aria-pressed": String(!this.hidden.has(name)),
      title: "Show or hide (shift: only this one)",
    }, [
      ["i", { class: "hw-swatch", style: `border-top: 3px ${dash ? "dashed" : "solid"} ${colour}` }, ""],
      ["span", { class: "hw-key-name" }, name],
    ]];
  }

  toggle(name, alone) {
    const names = [...new Set(this.reply.series.map((each) => each.name))];
    if (alone) {
      const only = !this.hidden.has(name) && this.hidden.size === names.length - 1;
      this.hidden = new Set(only ? [] : names.filter((each) => each !== name));
    } else if (!this.hidden.delete(name)) this.hidden.add(name);
    this.showKeys();
    for (const group of this.drawn.querySelectorAll(".hw-series")) { // at once; the scales follow with the answer
      group.toggleAttribute("hidden", this.hidden.has(this.series.get(Number(group.dataset.series)).name));
    }
    this.point(null);
    this.puller.change();
  }

  toggleLog() {
    this.log = !this.log;
    this.logButton.setAttribute("aria-pressed", String(this.log));
    this.puller.change();
  }

  toggleTable() {
    this.table.hidden = !this.table.hidden;
    this.tableButton.setAttribute("aria-expanded", String(!this.table.hidden));
    this.showTable();
  }

  showTable() {
    if (this.table.hidden || !this.reply) return;
    const { heads, series } = this.reply;
    const rows = series.filter((each) => !this.hidden.has(each.name)).flatMap((each) => each.points.map(([from, to, ...value]) =>
      [...(each.named ? [each.name] : []), across(from, to), value.filter(Boolean).join(", ")]));
    const cell = (tag) => (text, n, all) => [tag, n === all.length - 1 ? { class: "hw-right" } : {}, text];
    const body = rows.slice(0, TABLE_MAX).map((row) => ["tr", {}, row.map(cell("td"))]);
    if (rows.length > TABLE_MAX) body.push(["tr", {}, [["td", {}, `${grouped(rows.length - TABLE_MAX)} more`]]]);
    patch(this.table, [["table", { class: "hw-table" }, [
      ["thead", {}, [["tr", {}, heads.map(cell("th"))]]], ["tbody", {}, body],
    ]]]);
  }

  // ---- pointing

  place(event) {
    const box = this.svg.getBoundingClientRect();
    const scale = box.width ? this.svg.viewBox.baseVal.width / box.width : 1;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
  }

  move(event) {
    if (!this.reply) return;
    const at = this.place(event);
    if (this.drag) this.drag.to = at[this.axis];
    this.point(this.nearest(at));
  }

  nearest(at) {
    const { axis } = this;
    let best = null;
    let least = Infinity;
    for (const mark of this.marks) {
      const across = Math.abs(mark[axis] - at[axis]);
      const along = Math.abs(mark.x - at.x) + Math.abs(mark.y - at.y);
      const distance = this.scattered ? along : across + along / 1e4;
      if (distance < least) [best, least] = [mark, distance];
    }
    return best;
  }

  get scattered() { return this.reply.kind === "scatter"; }

  point(mark) {
    this.cursor = mark;
    this.showOver();
  }

  step(by) {
    const { ordered, axis } = this;
    if (!ordered || !ordered.length) return;
    const here = this.cursor ? ordered.indexOf(this.cursor) : by > 0 ? -1 : ordered.length;
    let next = Math.min(Math.max(here + by, 0), ordered.length - 1);
    const direction = Math.sign(by);
    while (this.cursor && !this.scattered && ordered[next][axis] === this.cursor[axis] && ordered[next + direction]) next += direction;
    this.point(ordered[next]);
  }

  // The points that are read out together: of each series the nearest.
  together(mark) {
    if (this.scattered) return [mark];
    const { axis } = this;
    return this.reply.series.flatMap(({ n }) => {
      const mine = this.marks.filter((each) => each.series === n);
      if (!mine.length) return [];
      const near = n === mark.series ? mark
        : mine.reduce((a, b) => (Math.abs(a[axis] - mark[axis]) <= Math.abs(b[axis] - mark[axis]) ? a : b));
      return Math.abs(near[axis] - mark[axis]) <= NEAR ? [near] : [];
    });
  }

  showOver() {
    const mark = this.cursor;
    const found = mark ? this.together(mark) : [];
    const [left, top, right, bottom] = this.reply ? this.reply.frame : [0, 0, 0, 0];
    const shapes = [];
    if (this.drag && this.drag.to !== undefined) {
      const [from, to] = [this.drag.from, this.drag.to].sort((a, b) => a - b);
      shapes.push(["rect", { class: "hw-dragged", x: from, y: top, width: to - from, height: bottom - top }, ""]);
    }
    if (mark && !this.bars && !this.scattered) shapes.push(["path", { class: "hw-hair", d: `M${mark.x} ${top}V${bottom}` }, ""]);
    for (const each of found) {
      shapes.push(["circle", { class: "hw-spot", cx: each.x, cy: each.y, r: 4, fill: this.series.get(each.series).colour }, ""]);
    }
    patch(this.over, shapes);
    this.tip.hidden = !mark;
    if (!mark) return;
    const [from, to] = this.told(mark);
    const lines = new Map(); // of plots above one another, the values of a name stand on one line
    for (const each of found) {
      const series = this.series.get(each.series);
      const [first, last, value, detail] = this.told(each);
      const apart = Math.abs(each[this.axis] - mark[this.axis]) > NEAR / 2; // not the same place: say which
      const line = lines.get(series.name) || { series, values: [], more: [] };
      line.values.push(value);
      line.more.push(...[detail, apart ? `at ${across(first, last)}` : ""].filter(Boolean));
      lines.set(series.name, line);
    }
    patch(this.tip, [["div", { class: "hw-tip-head" }, across(from, to)], ...[...lines.values()].map(({ series, values, more }) => [
      "div", { class: "hw-tip-line" }, [
        ["i", { style: `background: ${series.colour}` }, ""],
        ...(series.named ? [["span", { class: "hw-tip-name" }, series.name]] : []),
        ["b", {}, values.join(" \u00b7 ")],
        ...(more.length ? [["small", {}, more.join(", ")]] : []),
      ],
    ])]);
    const box = this.tip.getBoundingClientRect();
    const wide = this.svg.getBoundingClientRect().width || right;
    const x = mark.x + 14 + box.width > wide ? mark.x - 14 - box.width : mark.x + 14;
    this.tip.style.transform = `translate(${Math.max(0, x)}px, ${Math.max(0, Math.min(mark.y - box.height - 8, bottom - box.height))}px)`;
  }

  // ---- choosing

  down(event) {
    if (event.button !== 0 || !this.reply || !this.reply.choice || this.puller.closed) return;
    this.drag = { from: this.place(event)[this.axis] };
    this.svg.setPointerCapture(event.pointerId);
  }

  up(event) {
    if (!this.drag) return;
    const { from } = this.drag;
    const to = this.place(event)[this.axis];
    this.drag = null;
    if (this.bars) this.chooseBar(this.marks.find((mark) => mark.left <= to && to < mark.right));
    else if (Math.abs(to - from) < DRAG) this.choose([]);
    else this.chooseStretch(Math.min(from, to), Math.max(from, to));
    this.showOver();
  }

  chooseStretch(from, to) {
    const inside = this.ordered.filter((mark) => from <= mark.x && mark.x <= to);
    if (!inside.length) return this.choose([]);
    this.between(this.told(inside[0])[0], this.told(inside[inside.length - 1])[1]);
  }

  between(from, to) {
    const { column, choice } = this.reply;
    this.choose([{ column, op: choice[0], value: from }, { column, op: choice[1], value: to }]);
  }

  chooseBar(mark) {
    if (!mark) return this.choose([]);
    const value = this.told(mark)[0];
    const now = this.model.get("selection") || [];
    this.choose(now.length && now[0].value === value ? [] : [{ column: this.reply.column, op: "=", value }]);
  }

  press() { if (this.cursor && this.bars) this.chooseBar(this.cursor); }

  // From or to is the point that is read now; the other end stays, or is the plot's.
  limit(end) {
    if (!this.cursor || !this.reply.choice) return;
    if (this.bars) return this.chooseBar(this.cursor);
    const now = this.model.get("selection") || [];
    const [first, last] = [this.ordered[0], this.ordered[this.ordered.length - 1]];
    const ends = now.length === 2 ? [now[0].value, now[1].value] : [this.told(first)[0], this.told(last)[1]];
    ends[end] = this.told(this.cursor)[end];
    this.between(...ends);
  }

  escape() {
    if (this.cursor) this.point(null);
    else this.choose([]);
  }

  choose(selection) {
    if (JSON.stringify(this.model.get("selection") || []) === JSON.stringify(selection)) return;
    this.model.set("selection", selection);
    this.model.save_changes();
  }

  dispose() {
    this.resized.disconnect();
    for (const name of ["selection", "filters"]) this.model.off(`change:${name}`, this.onTrait);
    super.dispose();
  }
}

export default panel(ChartView);
