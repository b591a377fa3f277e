// Dead letters: causes above, the letters of the chosen cause below. What changes something is asked about first; the
// request names each letter with how often it had failed, so that the same request twice does nothing twice.

const COUNTS = ["open", "redriven", "discarded"];
const LIST_STATES = [["open", "open"], ["redriven", "redriven"], ["discarded", "discarded"]];

function cells(line, ...texts) {
  return texts.map((text) => {
    const cell = line.insertCell();
    cell.textContent = text;
    return cell;
  });
}

function heads(table, names, right) {
  const line = table.createTHead().insertRow();
  for (const name of names) {
    const cell = make("th", right.includes(name) ? "hw-right" : "", name);
    cell.scope = "col";
    line.append(cell);
  }
}

class Letters extends Panel {
  static label = "dead letters";
  static help = "records that were set aside; space pauses, tab moves on, enter chooses a cause";
  static ofNow = true; // what is open is so now, at any position

  begin() {
    this.chosen = null; // [topic, cause]
    this.state = "open";
    this.pages = ["0"]; // the id after which each page up to this one begins
    this.act = null; // the request that changes something, until it is answered
    this.ticked = new Map(); // id -> how often it had failed when it was ticked
    this.letters = [];
    this.edited = null; // the text of the row that was sent to be written
    this.fresh = true; // nothing was shown yet
    this.onSelection = () => this.tickOnly(this.model.get("selection") || []);
    this.model.on("change:selection", this.onSelection);
  }

  request() {
    const [topic, cause] = this.chosen || ["", ""];
    return { op: "list", topic, cause, state: this.state, after: this.pages[this.pages.length - 1], ...this.act };
  }

  fillFrame(scroll) {
    this.question = new Question();
    this.told = make("div", "hw-told");
    this.told.setAttribute("role", "status");
    this.told.hidden = true;
    this.causes = make("table", "hw-list hw-causes");
    heads(this.causes, ["topic", "cause", ...COUNTS, "first", "last"], COUNTS);
    this.causes.setAttribute("aria-label", "causes");
    this.causeRows = this.causes.createTBody();
    this.none = make("div", "hw-none", "No record was ever set aside.");
    this.none.hidden = true;
    this.bar = this.actionBar();
    this.list = make("table", "hw-list hw-letters");
    this.list.setAttribute("aria-label", "letters");
    heads(this.list, ["", "id", "failed", "tries", "reason", "field", "original", ""], ["id", "tries"]);
    this.all = make("input");
    this.all.type = "checkbox";
    this.all.setAttribute("aria-label", "all letters of this page");
    this.all.addEventListener("change", () => this.tickAll(this.all.checked));
    this.list.tHead.rows[0].cells[0].append(this.all);
    this.letterRows = this.list.createTBody();
    scroll.append(this.causes, this.none, this.bar, this.question.root, this.told, this.list);
  }

  actionBar() {
    const bar = make("div", "hw-bar hw-actions");
    this.title = make("strong", "hw-title");
    this.states = make("select", "hw-select");
    this.states.setAttribute("aria-label", "which letters");
    for (const [value, text] of LIST_STATES) this.states.append(new Option(text, value));
    this.states.addEventListener("change", () => { this.state = this.states.value; this.restart(); });
    this.redriveButton = button("redrive", "Write the ticked records into their topic, those that may enter now", () => this.askRedrive());
    this.discardButton = button("discard\u2026", "Give the ticked letters up, with a reason; their bytes stay", () => this.askDiscard());
    this.previousButton = button("previous", "Earlier letters", () => { this.pages.pop(); this.clear(); this.puller.change(); });
    this.nextButton = button("next", "Later letters", () => { this.pages.push(this.next); this.clear(); this.puller.change(); });
    bar.append(this.title, make("span", "hw-gap"), this.states, this.redriveButton, this.discardButton, this.previousButton, this.nextButton);
    return bar;
  }

  restart() {
    this.pages = ["0"];
    this.clear();
    this.puller.change();
  }

  clear() {
    this.question.end();
    this.ticked.clear();
    this.tellTicked();
  }

  choose(topic, cause) {
    this.chosen = [topic, cause];
    this.told.hidden = true;
    this.restart();
  }

  // ---- an answer

  show(reply) {
    const act = this.act;
    if (act && (reply.results || reply.original || reply.error)) this.act = null;
    if (act && reply.error) { // told where it stays: the bar above is for what a refresh says
      this.tell([`Nothing was changed. ${[reply.error.what, reply.error.todo].filter(Boolean).join(" ")}`], true);
      return super.show({ ...reply, error: undefined, unchanged: true, version: null });
    }
    super.show(reply);
  }

  fill(reply) {
    if (reply.results) this.tellResults(reply.results);
    this.total.textContent = `${grouped(reply.open)} open`;
    this.root.dataset.open = reply.open;
    this.none.hidden = reply.causes.length > 0;
    this.causes.hidden = !reply.causes.length;
    this.list.hidden = this.bar.hidden = !reply.chosen;
    if (reply.chosen) this.chosen = reply.chosen;
    this.next = reply.next;
    this.refused = reply.refused;
    this.showCauses(reply.causes, reply.more_causes);
    this.showLetters(reply.letters);
    this.title.textContent = this.chosen ? this.chosen.join(" \u00b7 ") : "";
    if (this.fresh) this.tickOnly(this.model.get("selection") || []);
    this.fresh = false;
    if (reply.original) this.askMend(reply.original);
  }

  showCauses(causes, more) {
    const key = JSON.stringify([causes, this.chosen]);
    if (key === this.causesShown) return;
    this.causesShown = key;
    const held = this.causeRows.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.causeRows.replaceChildren();
    for (const each of causes) {
      const line = this.causeRows.insertRow();
      const chosen = Boolean(this.chosen) && this.chosen[0] === each.topic && this.chosen[1] === each.cause;
      line.classList.toggle("hw-chosen", chosen);
      const name = line.insertCell();
      const open = button(each.topic, "Show its letters", () => this.choose(each.topic, each.cause));
      open.className = "hw-link";
      open.dataset.key = JSON.stringify([each.topic, each.cause]);
      open.setAttribute("aria-pressed", String(chosen));
      name.append(open);
      const [, ...counts] = cells(line, each.cause, ...COUNTS.map((count) => grouped(each[count])));
      for (const cell of counts) cell.className = "hw-right";
      counts[0].classList.toggle("hw-waits", each.open !== "0");
      cells(line, moment(each.first), moment(each.last)).forEach((cell) => { cell.className = "hw-dim"; });
      line.addEventListener("click", (event) => { if (event.target !== open) this.choose(each.topic, each.cause); });
      if (open.dataset.key === held) open.focus();
    }
    if (more) cells(this.causeRows.insertRow(), `${grouped(more)} more causes`)[0].colSpan = 7;
  }

  showLetters(letters) {
    const known = new Map(letters.map((each) => [each.id, each.tries]));
    for (const [id, tries] of this.ticked) if (known.get(id) !== tries) this.ticked.delete(id);
    const key = JSON.stringify([letters, this.state, this.refused]);
    this.letters = letters;
    if (key !== this.lettersShown) {
      this.lettersShown = key;
      this.letterRows.replaceChildren();
      for (const each of letters) this.letterRow(each);
      if (!letters.length) {
        const [cell] = cells(this.letterRows.insertRow(), `No ${this.state} letters of this cause.`);
        cell.colSpan = 8;
        cell.className = "hw-dim";
      }
    }
    this.previousButton.hidden = this.pages.length === 1;
    this.nextButton.hidden = !this.next;
    this.tellTicked();
  }

  letterRow(each) {
    const line = this.letterRows.insertRow();
    line.dataset.letter = each.id;
    const tick = make("input");
    tick.type = "checkbox";
    tick.disabled = this.state !== "open";
    tick.setAttribute("aria-label", `letter ${each.id}`);
    tick.addEventListener("change", () => {
      if (tick.checked) this.ticked.set(each.id, each.tries);
      else this.ticked.delete(each.id);
      this.tellTicked();
    });
    line.insertCell().append(tick);
    const [id, failed, tries, reason, field, original] = cells(line, each.id, moment(each.failed), String(each.tries),
      each.reason, each.field || "", "");
    id.className = tries.className = "hw-right";
    failed.className = "hw-dim";
    reason.className = "hw-reason";
    if (each.said) reason.append(make("div", "hw-dim", each.said));
    field.className = "hw-field";
    original.append(make("code", "", each.text + (each.cut ? "\u2026" : "")));
    const about = [each.cut ? `${grouped(each.bytes)} bytes` : "", each.place, each.group ? `group ${each.group}` : ""];
    if (about.some(Boolean)) original.append(make("div", "hw-dim", about.filter(Boolean).join(" \u00b7 ")));
    const edit = button("edit", "Change the row, then redrive it", () => this.get(each));
    edit.disabled = Boolean(this.refused);
    if (this.refused) edit.title = this.refused;
    const last = line.insertCell();
    if (each.editable && this.state === "open") last.append(edit);
  }

  // ---- ticks

  tickAll(on) {
    this.ticked = new Map(on ? this.letters.map((each) => [each.id, each.tries]) : []);
    this.tellTicked();
  }

  tickOnly(ids) {
    this.ticked = new Map(this.letters.filter((each) => ids.includes(each.id)).map((each) => [each.id, each.tries]));
    this.tellTicked();
  }

  tellTicked() {
    const ids = [...this.ticked.keys()];
    for (const line of this.letterRows.rows) {
      const tick = line.querySelector("input");
      if (tick) tick.checked = this.ticked.has(line.dataset.letter);
    }
    this.all.checked = ids.length > 0 && ids.length === this.letters.length;
    this.all.indeterminate = ids.length > 0 && ids.length < this.letters.length;
    this.all.disabled = this.state !== "open" || !this.letters.length;
    this.redriveButton.textContent = ids.length ? `redrive ${ids.length}` : "redrive";
    this.discardButton.textContent = ids.length ? `discard ${ids.length}\u2026` : "discard\u2026";
    this.discardButton.disabled = !ids.length;
    this.redriveButton.disabled = !ids.length || Boolean(this.refused);
    this.redriveButton.title = this.refused || "Write the ticked records into their topic, those that may enter now";
    const told = this.model.get("selection") || [];
    if (JSON.stringify(told) === JSON.stringify(ids)) return;
    this.model.set("selection", ids);
    this.model.save_changes();
  }

  named(ids) { return ids.map((id) => ({ id, tries: this.ticked.get(id) })); }

  counted(ids) { return `${ids.length} ${ids.length === 1 ? "letter" : "letters"} of ${this.chosen[0]}`; }

  // ---- what changes something

  askRedrive() {
    const letters = this.named([...this.ticked.keys()]);
    this.question.ask(`Redrive ${this.counted(letters)}? Those that may enter now are written into the topic, the others stay open.`,
      "redrive", () => this.run({ op: "redrive", letters }), { back: this.redriveButton });
  }

  askDiscard() {
    const letters = this.named([...this.ticked.keys()]);
    const field = make("input");
    field.placeholder = "why these records are not needed";
    field.setAttribute("aria-label", "reason");
    this.question.ask(`Discard ${this.counted(letters)}? Their bytes stay until their retention ends; they cannot be opened again.`,
      "discard", (reason) => this.run({ op: "discard", letters, reason }), { field, needed: true, back: this.discardButton });
  }

  get(letter) { this.run({ op: "original", letter: letter.id }); }

  askMend({ id, tries, row }) {
    const field = make("textarea");
    field.value = row;
    field.spellcheck = false;
    field.setAttribute("aria-label", `row of letter ${id}`);
    const topic = this.chosen[0];
    this.question.ask(`Letter ${id}: put the row right. It is written into ${topic} in place of what came, which stays among the letters.`,
      "redrive this row", (text) => {
        this.edited = { id, tries, row: text };
        this.run({ op: "mend", topic, letters: [{ id, tries }], row: text });
      }, { field, needed: true });
  }

  run(act) {
    if (act.op !== "mend") this.edited = null;
    this.act = act;
    this.told.hidden = true;
    this.puller.change();
  }

  tellResults(results) {
    const count = (what) => results.filter((each) => each.what === what).length;
    const lines = [["done", "done"], ["bad", "still bad"], ["left", "left alone"]]
      .filter(([what]) => count(what)).map(([what, text]) => `${count(what)} ${text}`);
    const each = results.map((result) => `letter ${result.id}: ${result.said}`);
    this.ticked.clear();
    if (this.edited && count("bad")) this.askMend(this.edited); // what was typed is not lost
    this.edited = null;
    this.tell([lines.join(", "), ...each.slice(0, 20), ...(each.length > 20 ? [`and ${each.length - 20} more`] : [])],
      count("bad") > 0);
  }

  tell([first, ...more], bad) {
    this.told.classList.toggle("hw-bad", bad);
    this.told.replaceChildren(make("strong", "", first), ...more.map((text) => make("div", "", text)),
      button("close", "Take this note away", () => { this.told.hidden = true; }));
    this.told.hidden = false;
  }

  dispose() {
    this.model.off("change:selection", this.onSelection);
    super.dispose();
  }
}

export default panel(Letters);
