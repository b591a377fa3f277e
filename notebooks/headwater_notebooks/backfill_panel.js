// A replay of one view: plan, start, progress, checks, promote. The steps are told above, and what can be done now below.

const STEPS = [["plan", "plan"], ["making", "make the rows"], ["comparing", "compare"], ["promoting", "switch"], ["done", "done"]];
const WORDS = {
  starting: "starting", making: "making the rows", comparing: "comparing", promoting: "the worker builds it and switches",
  done: "done", failed: "failed", cancelled: "cancelled",
};

function lasting(seconds) {
  if (seconds < 90) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function sized(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [number, unit] = [Number(bytes), 0];
  while (number >= 1024 && unit < units.length - 1) [number, unit] = [number / 1024, unit + 1];
  return `${number < 10 && unit ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
}

const several = (count, one, more) => `${grouped(count)} ${String(count) === "1" ? one : more}`;

class Backfill extends Panel {
  static label = "replay of a view";
  static help = "a replay; space pauses the panel, not the replay";
  static ofNow = true; // a run is as it is now

  begin() {
    this.act = null;
    this.run = null;
    this.keep = false;
  }

  request() { return { op: "state", ...this.act }; }

  fillFrame(scroll) {
    this.steps = make("ol", "hw-steps");
    this.stepItems = STEPS.map(([id, text]) => {
      const item = make("li", "", text);
      item.dataset.step = id;
      return item;
    });
    this.steps.append(...this.stepItems);
    this.plan = make("div", "hw-part hw-plan");
    this.progress = make("div", "hw-part");
    this.bar = make("div", "hw-progress");
    this.bar.setAttribute("role", "progressbar");
    this.bar.setAttribute("aria-label", "records read");
    this.bar.setAttribute("aria-valuemin", "0");
    this.bar.setAttribute("aria-valuemax", "100");
    this.fillBar = make("div", "hw-progress-fill");
    this.bar.append(this.fillBar);
    this.told = make("div", "hw-figures");
    this.progress.append(this.bar, this.told);
    this.result = make("div", "hw-part hw-result");
    this.result.setAttribute("role", "status");
    this.note = make("div", "hw-part hw-refusal"); // why nothing was begun; it stays until somebody goes on
    this.note.setAttribute("role", "alert");
    this.note.hidden = true;
    this.checks = make("table", "hw-list hw-checks");
    this.checks.setAttribute("aria-label", "checks");
    this.sample = make("div", "hw-part hw-sample");
    this.question = new Question();
    this.doing = make("div", "hw-bar hw-doing");
    this.keepBox = make("input");
    this.keepBox.type = "checkbox";
    this.keepBox.addEventListener("change", () => { this.keep = this.keepBox.checked; });
    this.keepLabel = make("label", "hw-keep");
    this.keepLabel.append(this.keepBox, make("span", "", "keep the rows as a Parquet file"));
    this.keepLabel.title = "Written to the project's folder replays, one file per view";
    this.startButton = button("start", "Make the rows beside the live view and compare both; nothing of the live view changes",
      () => this.start());
    this.cancelButton = button("cancel", "End this replay; the live view stays as it is", () => this.askCancel());
    this.promoteButton = button("promote\u2026", "Put what is made in the live view's place, in one commit", () => this.askPromote());
    this.doing.append(this.startButton, this.promoteButton, this.cancelButton, this.keepLabel);
    scroll.append(this.steps, this.progress, this.result, this.checks, this.sample, this.plan, this.note, this.question.root, this.doing);
  }

  show(reply) {
    const act = this.act;
    this.act = null;
    if (act && reply.error) {
      this.note.replaceChildren(
        make("div", "hw-first", [reply.error.what, reply.error.todo].filter(Boolean).join(" ")),
        button("close", "Take this note away", () => { this.note.hidden = true; }));
      this.note.hidden = false;
      reply = { ...reply, error: undefined, unchanged: true, version: null };
    }
    super.show(reply);
  }

  fill(reply) {
    const { run, plan } = reply;
    this.run = run;
    const before = this.root.dataset.phase;
    this.root.dataset.phase = run ? run.phase : "";
    if (this.model.get("phase") !== this.root.dataset.phase) {
      this.model.set("phase", this.root.dataset.phase);
      this.model.save_changes();
    }
    if (before !== this.root.dataset.phase && this.question.open) this.question.end(); // asked about what is over
    this.total.textContent = `view ${this.model.get("_name")}`;
    this.tellSteps(run);
    this.tellPlan(plan, reply.asked, run);
    this.tellProgress(run);
    this.tellResult(run);
    this.tellChecks(run);
    this.tellSample(run);
    const running = Boolean(run) && !run.ended;
    this.startButton.hidden = this.keepLabel.hidden = running;
    this.startButton.textContent = run ? "start anew" : "start";
    this.startButton.disabled = !plan || Boolean(plan.refused);
    this.cancelButton.hidden = !running;
    this.promoteButton.hidden = !(run && run.phase === "done" && !run.commit);
    this.promoteButton.disabled = !plan || Boolean(plan.refused);
  }

  tellSteps(run) {
    const failed = run && (run.phase === "failed" || run.phase === "cancelled");
    const promoting = run && (run.promote || run.commit);
    const order = STEPS.map(([id]) => id);
    const now = !run ? "plan" : run.phase === "starting" ? "making" : failed ? null : run.phase;
    for (const item of this.stepItems) {
      const { step } = item.dataset;
      item.hidden = step === "promoting" && !(promoting || (!run && this.model.get("_promotes")));
      const reached = now !== null && order.indexOf(step) < order.indexOf(now);
      item.classList.toggle("hw-over", reached || (step === "done" && now === "done"));
      if (step === now) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
  }

  tellPlan(plan, asked, run) {
    this.plan.hidden = !plan;
    if (!plan) return;
    if (plan.refused) {
      this.plan.replaceChildren(make("span", "hw-trouble", plan.refused));
      return;
    }
    const range = plan.after === plan.upto ? `from the tables' rows at commit ${grouped(plan.upto)}`
      : `commits ${grouped(plan.after)} to ${grouped(plan.upto)}`;
    const given = asked.some(Boolean) ? ` (${asked[0] || "rows at the end"} \u2192 ${asked[1] || "latest"})` : "";
    this.plan.replaceChildren(
      make("strong", "", run ? "Next: " : "Plan: "),
      make("span", "", `${range}${given}; about ${several(plan.rows, "record", "records")} in `
        + `${several(plan.files, "file", "files")}, ${sized(plan.bytes)}; takes about ${lasting(plan.seconds)}`));
  }

  tellProgress(run) {
    this.progress.hidden = !run || run.ended;
    if (this.progress.hidden) return;
    const known = run.fraction !== null && run.phase !== "promoting" && run.phase !== "starting";
    this.bar.classList.toggle("hw-unknown", !known);
    this.fillBar.style.width = known ? `${(run.fraction * 100).toFixed(1)}%` : "";
    if (known) this.bar.setAttribute("aria-valuenow", String(Math.round(run.fraction * 100)));
    else this.bar.removeAttribute("aria-valuenow");
    const figures = [`${grouped(run.done)} of about ${several(run.rows, "record", "records")}`];
    if (run.rows_per_s) figures.push(`${grouped(Math.round(run.rows_per_s))} a second`);
    if (run.left_s !== null) figures.push(`${lasting(run.left_s)} left`);
    figures.push(`commits ${grouped(run.after)} to ${grouped(run.upto)}`, `${lasting(run.seconds)} so far`);
    this.told.replaceChildren(make("strong", "", WORDS[run.phase]), ...figures.map((text) => make("span", "", text)));
  }

  tellResult(run) {
    this.result.hidden = !run || !run.ended;
    if (this.result.hidden) return;
    const bad = run.phase !== "done" || (run.same === false && !run.commit);
    this.result.className = `hw-part hw-result ${bad ? "hw-bad" : "hw-good"}`;
    const lines = [];
    if (run.phase !== "done") {
      lines.push(`${WORDS[run.phase][0].toUpperCase()}${WORDS[run.phase].slice(1)} after ${lasting(run.seconds)}. `
        + (run.error || "The live view is as it was."));
    } else if (run.commit) {
      lines.push(`Promoted at commit ${grouped(run.commit)}: what readers see is what was replayed.`,
        `The rows before the switch stay readable at commit ${grouped(String(BigInt(run.commit) - 1n))}, for as long as history is kept.`);
    } else if (run.same) lines.push("The live view has the same rows: there is nothing to promote.");
    else lines.push("The live view has other rows. Promoting puts what is made in its place.");
    if (run.keep && run.phase === "done") lines.push(`Its rows are kept in ${run.keep}`);
    lines.push(`${several(run.rows, "record", "records")} in ${lasting(run.seconds)}, finished ${moment(run.finished)}`);
    this.result.replaceChildren(...lines.map((text, place) => make("div", place === 0 ? "hw-first" : "hw-dim", text)));
  }

  tellChecks(run) {
    this.checks.hidden = !run || !run.checks.length;
    if (this.checks.hidden) return;
    const head = make("thead");
    const titles = head.insertRow();
    for (const [text, right] of [["check", ""], ["replayed", "hw-right"], ["live", "hw-right"], ["", ""]]) {
      const cell = make("th", right, text);
      cell.scope = "col";
      titles.append(cell);
    }
    const body = make("tbody");
    for (const check of run.checks) {
      const line = body.insertRow();
      line.dataset.same = check.same;
      const shown = (text) => (check.name === "checksum" ? text : grouped(text));
      [check.name, shown(check.replayed), shown(check.live), check.same ? "\u2713 same" : "\u2717 differs"].forEach((text, place) => {
        const cell = line.insertCell();
        cell.textContent = text;
        cell.className = ["", "hw-right", "hw-right", "hw-verdict"][place];
      });
    }
    this.checks.replaceChildren(head, body);
  }

  tellSample(run) {
    this.sample.hidden = !run || !run.sample;
    if (this.sample.hidden) return;
    const table = make("table", "hw-list");
    const titles = table.createTHead().insertRow();
    const { columns, rows } = run.sample;
    for (const name of columns) {
      const cell = make("th", "", { _replayed: "times replayed", _live: "times live" }[name] || name);
      cell.scope = "col";
      titles.append(cell);
    }
    const body = table.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      row.forEach((value, place) => {
        const cell = line.insertCell();
        cell.textContent = value === null ? "NULL" : value;
        if (columns[place] === "_replayed" || columns[place] === "_live") cell.className = "hw-right";
      });
    }
    this.sample.replaceChildren(make("div", "hw-first", `${several(rows.length, "row", "rows")} that differ, as a sample`), table);
  }

  // ---- what is done; each request names the run that was seen, so that the same request twice is one

  start() {
    if (this.model.get("_promotes")) return this.askPromote();
    this.ask({ op: "start", promote: false });
  }

  ask(act) {
    this.note.hidden = true;
    this.act = act.op === "start" ? { ...act, seen: this.run ? this.run.id : "", keep: this.keep } : act;
    this.puller.change();
  }

  askPromote() {
    this.question.ask(`Make view ${this.model.get("_name")} once more and put it in the live view's place? `
      + "Until the switch, one commit, nothing changes; its changelog then receives the difference.",
    "promote", () => this.ask({ op: "start", promote: true }), { back: this.promoteButton });
  }

  askCancel() {
    const { id } = this.run;
    this.question.ask("End this replay? The live view stays as it is.", "end it", () => this.ask({ op: "cancel", run: id }),
      { back: this.startButton });
  }
}

export default panel(Backfill);
