// The parts that talk. A Puller asks for one panel: one request outstanding, none while it is paused or nobody looks. A
// Link decides when and at which position: linked panels ask in rounds, and when all have their answers they show them in
// one task of the page, so that no two of them are ever seen at different positions. A panel alone is a Link of one.
//
//   round:  position decided ──▶ every active member asks there ──▶ all answered, or too late ──▶ all show
//           (`at` of the link, else the first member's answer)      (hidden, paused, closed: no part in it)

const BUSY_AFTER_MS = 2000; // an answer that takes longer shows as "kernel busy"
const LATE_AFTER_MS = 3000; // a round in which nobody answered for so long goes on without those it waits for
const LOST_AFTER_MS = 15000; // no answer for so long shows as "no answer"
const AUTO_MAX_MS = 2000; // the longest pause of the automatic interval while nothing changes
const LOAD_SHARE = 4; // automatic: wait at least this many times as long as the last round took ...
const LOAD_MAX_MS = 10000; // ... but after one long cell not for minutes

// The number in "commit:42" or "42"; null for what only the kernel can read: a tag, a time, the newest.
const commitIn = (at) => (/^(?:commit:)?(\d+)$/.exec(at) || [null, null])[1];

class Link {
  // anywidget loads each panel's module apart: what they share is found through the page.
  static of(name, base) {
    if (!name) return new Link(null, base);
    const key = Symbol.for(`headwater.link.${name}`);
    globalThis[key] = globalThis[key] || new Link(key, base);
    return globalThis[key];
  }

  constructor(key, base) {
    this.key = key;
    this.base = base; // milliseconds between two rounds while something changes
    this.delay = base;
    this.every = "auto";
    this.members = new Set();
    this.at = null; // the position that is wanted, "" is the newest; null before the first member
    this.position = null; // what the last round showed ...
    this.shownAt = null; // ... and for which `at`
    this.round = null; // {at, position (null: undecided), begun, progress, waiting, held: member -> [reply, arrived], timer}
    this.timer = null;
  }

  // A member comes: the first one brings the position that is wanted, later ones take it.
  join(member, at) {
    this.members.add(member);
    if (this.at === null) this.at = at;
    this.enter(member);
  }

  leave(member) {
    this.members.delete(member);
    this.exit(member);
    if (!this.members.size) {
      clearTimeout(this.timer);
      if (this.key) delete globalThis[this.key];
    }
  }

  turn(at) {
    if (at === this.at) return;
    this.at = at;
    this.begin();
  }

  // One round for all who look; while one is under way, the next begins behind it.
  begin() {
    clearTimeout(this.timer);
    if (!this.round) this.start([...this.members].filter((member) => member.active), this.decided());
  }

  decided() {
    if (!this.at) return null;
    return commitIn(this.at) || (this.at === this.shownAt ? this.position : null);
  }

  // One that did not answer in time is not waited for again before it has.
  start(all, position) {
    const members = all.filter((member) => !member.overdue);
    if (!members.length) return;
    clearTimeout(this.timer);
    const now = performance.now();
    this.round = { at: this.at, position, begun: now, progress: now, waiting: new Set(members), held: new Map(), timer: null };
    for (const member of members) member.tellAt(this.at);
    this.press();
  }

  // Somebody looks again, or asks something else: at the position that others show, if there are any.
  enter(member) {
    if (!member.active) return;
    if (this.round) {
      this.round.held.delete(member);
      this.round.waiting.add(member);
      member.tellAt(this.at);
      this.press();
    } else if (this.at === this.shownAt && this.leads(member)) this.start([member], this.position);
    else this.begin();
  }

  exit(member) {
    const { round } = this;
    if (!round) return;
    round.held.delete(member);
    if (round.waiting.delete(member)) this.press();
  }

  // Whether others show a position, so that this one is behind when it shows another.
  leads(member) {
    return [...this.members].some((other) => other !== member && other.active && other.position === this.position);
  }

  // Ask whom can be asked. Undecided: one after the other, for the first answer decides. Nobody left: the round ends.
  press() {
    const { round } = this;
    const linked = this.members.size > 1;
    for (const member of round.waiting) {
      if (member.pending) continue;
      if (round.position === null) {
        const asked = [...round.waiting].some((other) => other.pending && !other.overdue);
        // In a link the newest is a commit that all can be asked for, not what this one happens to have.
        if (!asked) member.ask(linked ? round.at || "latest" : round.at);
      } else if (member.shows(round)) {
        member.answered = Date.now(); // who decided vouches for it: nothing has moved
        round.waiting.delete(member);
      } else member.ask(linked || round.at ? `commit:${round.position}` : "");
    }
    const waited = [...round.waiting].filter((member) => !(round.position !== null && member.overdue));
    if (!waited.length) return this.finish();
    clearTimeout(round.timer);
    round.timer = setTimeout(() => this.late(), LATE_AFTER_MS);
  }

  // A panel has its answer. One that no round waits for (it was late, or is paused) shows it as it comes.
  answer(member, reply, asked) {
    const { round } = this;
    if (!round || !round.waiting.has(member)) return this.alone(member, reply, asked);
    round.progress = performance.now();
    if (asked.overdue) for (const other of round.waiting) other.overdue = false; // the kernel was busy, and is back
    const position = reply.position === undefined ? member.position : reply.position;
    if (!reply.error && position !== null) {
      if (round.position === null && asked.wanted === round.at && !commitIn(asked.at)) round.position = position;
      if (position !== round.position) { // it was asked before this was decided: once more
        if (!this.ahead(position)) member.show(reply, Date.now(), asked.wanted);
        return this.press();
      }
    }
    round.waiting.delete(member);
    round.held.set(member, [reply, Date.now()]);
    this.press();
  }

  ahead(position) { return this.position !== null && BigInt(position) > BigInt(this.position); }

  alone(member, reply, asked) {
    const linked = member.active && this.members.size > 1;
    if (linked && !reply.error && reply.position !== undefined && this.ahead(reply.position)) return this.enter(member);
    member.show(reply, Date.now(), asked.wanted);
    if (this.members.size === 1) [this.position, this.shownAt] = [member.position, asked.wanted];
    if (!this.round && member.active) this.later();
  }

  // Nobody answers: undecided, the next one is asked; else those who have their answers wait no longer for the others.
  late() {
    const { round } = this;
    for (const member of round.waiting) member.overdue = Boolean(member.pending);
    this.press();
  }

  finish() {
    const { round } = this;
    clearTimeout(round.timer);
    this.round = null;
    if (round.position !== null) [this.position, this.shownAt] = [round.position, round.at];
    for (const [member, [reply, arrived]] of round.held) {
      try {
        member.show(round.position === null ? reply : { ...reply, position: round.position }, arrived, round.at);
      } catch (error) {
        reportError(error); // the others turn all the same
      }
    }
    for (const member of this.members) member.onState();
    const replies = [...round.held.values()].map(([reply]) => reply);
    const quiet = replies.every((reply) => reply.unchanged || reply.error);
    this.delay = quiet ? Math.min(this.delay * 1.5, Math.max(AUTO_MAX_MS, this.base)) : this.base;
    this.delay = Math.max(this.delay, Math.min((performance.now() - round.begun) * LOAD_SHARE, LOAD_MAX_MS));
    if (this.at !== round.at) this.begin();
    else this.later();
  }

  setEvery(every) {
    this.every = every;
    this.begin();
    for (const member of this.members) member.onState();
  }

  later() {
    clearTimeout(this.timer);
    const moving = [...this.members].some((member) => member.active && (!this.at || member.failed || member.always));
    if (moving) this.timer = setTimeout(() => this.begin(), this.every === "auto" ? this.delay : Number(this.every));
  }
}

class Puller {
  // `panel`: request(), show(reply), showState(), and in `constructor` what kind it is (ofNow, always).
  constructor(model, panel) {
    Object.assign(this, { model, panel });
    this.view = Math.random().toString(36).slice(2, 10);
    this.count = 0;
    this.pending = null; // {id, revision, sent, wanted}
    this.overdue = false; // its round did not wait for it
    this.revision = 0; // grows with each change of what is asked for ...
    this.shown = -1; // ... and this is the one of the last answer shown
    this.version = null;
    this.position = null;
    this.at = ""; // for which `at` of the link the last answer was
    this.visible = false;
    this.closed = false;
    this.failed = false;
    this.answered = null; // when the last answer came
    this.always = Boolean(panel.constructor.always);
    this.receive = this.receive.bind(this);
    this.onAt = () => { if (!panel.constructor.ofNow) this.link.turn(model.get("at") || ""); };
    this.onLink = () => { this.link.leave(this); this.join(); };
    this.onPaused = () => { if (this.paused) this.link.exit(this); else this.link.enter(this); this.onState(); };
    this.heard = { "msg:custom": this.receive, "change:at": this.onAt, "change:_link": this.onLink, "change:paused": this.onPaused };
    for (const [event, listener] of Object.entries(this.heard)) model.on(event, listener);
    this.join();
  }

  // What tells only what is so now has no position in common with anything.
  join() {
    const { ofNow } = this.panel.constructor;
    this.link = Link.of(ofNow ? "" : this.model.get("_link"), Math.max(100, this.model.get("_interval_ms") || 500));
    this.link.join(this, ofNow ? "" : this.model.get("at") || "");
  }

  get paused() { return Boolean(this.model.get("paused")); }
  get active() { return this.visible && !this.paused && !this.closed; }

  get state() {
    if (this.closed) return "closed";
    const { round } = this.link;
    const since = round && (round.waiting.has(this) || round.held.has(this)) ? round.progress : Infinity;
    const waited = performance.now() - Math.min(since, this.pending ? this.pending.sent : Infinity); // or -Infinity
    if (waited > LOST_AFTER_MS) return "lost";
    if (this.failed) return "error";
    if (this.paused) return "paused";
    if (!this.visible) return "hidden";
    if (waited > BUSY_AFTER_MS) return "busy";
    if (this.answered === null) return "loading";
    if (this.position !== this.link.position && this.link.leads(this)) return "behind";
    return this.at ? "pinned" : "live";
  }

  shows(round) {
    const asksOn = this.failed || this.shown !== this.revision || (this.always && round.at);
    return !asksOn && this.position === round.position && this.at === round.at;
  }

  // What is asked for changed: ask at once, even when paused, because a person did it.
  change() {
    this.revision += 1;
    this.version = null;
    if (this.active) this.link.enter(this);
    else this.ask(this.link.at);
  }

  // ... but not by a person who looks at it: a panel that is paused or that nobody sees waits.
  turn() {
    this.revision += 1;
    this.version = null;
    if (this.active) this.link.enter(this);
  }

  ask(at) {
    if (this.pending || this.closed) return;
    this.overdue = false;
    this.pending = {
      id: `${this.view}.${++this.count}`, revision: this.revision, sent: performance.now(), wanted: this.link.at, at,
    };
    const newest = this.link.at === "" && at !== ""; // a link that follows names the commit that it has come to
    this.model.send({ id: this.pending.id, since_version: this.version, at, newest, ...this.panel.request() });
    this.onState();
  }

  receive(message) {
    if (message && message.closed) return this.close();
    if (!this.pending || !message || message.id !== this.pending.id) return;
    const asked = { ...this.pending, overdue: this.overdue };
    this.pending = null;
    this.overdue = false;
    if (asked.revision === this.revision) return this.link.answer(this, message, asked);
    if (this.active) this.link.enter(this); // the question changed meanwhile
    else this.ask(this.link.at);
  }

  show(reply, arrived, at) {
    this.failed = Boolean(reply.error);
    this.answered = arrived;
    if (!reply.error) {
      [this.version, this.shown, this.at] = [reply.version, this.revision, at];
      if (reply.position !== undefined) this.position = reply.position;
    }
    this.panel.show(reply);
  }

  tellAt(at) {
    if (this.panel.constructor.ofNow || (this.model.get("at") || "") === at) return;
    this.model.set("at", at);
    this.model.save_changes();
  }

  // One panel, or all that are linked with it.
  pause(paused, all = false) {
    for (const { model } of all ? this.link.members : [this]) {
      model.set("paused", paused);
      model.save_changes();
    }
  }

  see(visible) {
    if (visible === this.visible) return;
    this.visible = visible;
    if (visible) this.link.enter(this);
    else this.link.exit(this);
    this.onState();
  }

  retry() {
    this.overdue = false;
    this.pending = null; // its answer, should it still come, carries another id
    if (this.active) this.link.enter(this);
    else this.ask(this.link.at);
  }

  onState() { this.panel.showState(); }

  close() {
    if (this.closed) return;
    this.closed = true;
    this.pending = null;
    this.link.leave(this);
    for (const [event, listener] of Object.entries(this.heard)) this.model.off(event, listener);
    this.onState();
  }
}

