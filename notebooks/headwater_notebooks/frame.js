// What every panel is made of: a frame that says how live it is, around the part that asks (pull.js stands before this
// text). Everything that came from data reaches the page through textContent. A panel's own module follows this text and
// is a class of `Panel`.

const INTERVALS = [["auto", "auto"], ["500", "0.5 s"], ["1000", "1 s"], ["5000", "5 s"], ["30000", "30 s"]];
const STATES = {
  loading: "loading", live: "live", pinned: "pinned", paused: "paused", hidden: "not in view", busy: "kernel busy",
  behind: "behind", lost: "no answer", error: "error", closed: "closed",
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

// A moment in the reader's own zone, as "2026-11-27 21:57:00 UTC".
function moment(iso) {
  const at = new Date(iso);
  const two = (number) => String(number).padStart(2, "0");
  const zone = new Intl.DateTimeFormat("en", { timeZoneName: "short" }).formatToParts(at).find((part) => part.type === "timeZoneName");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `
    + `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())} ${zone ? zone.value : ""}`;
}

// What a person is asked before something is changed: a sentence, perhaps a field to fill in, yes and no. One at a time.
class Question {
  constructor() {
    this.root = make("div", "hw-question");
    this.root.setAttribute("role", "alertdialog");
    this.root.hidden = true;
    this.root.addEventListener("keydown", (event) => {
      event.stopPropagation(); // a notebook acts on single keys
      if (event.key === "Escape") this.end();
      if (event.key === "Enter" && event.target.tagName === "INPUT") this.yes.click();
    });
  }

  get open() { return !this.root.hidden; }

  // `field`: an element that has a value, or none; `act` gets what stands in it. `back`: has the focus afterwards.
  ask(text, yes, act, { field = null, needed = false, back = null } = {}) {
    this.back = back;
    this.yes = button(yes, "", () => { this.end(); act(field ? field.value : null); });
    this.yes.classList.add("hw-yes");
    const no = button("cancel", "Change nothing (escape)", () => this.end());
    if (field && needed) {
      const check = () => { this.yes.disabled = !field.value.trim(); };
      field.addEventListener("input", check);
      check();
    }
    const buttons = make("div", "hw-answers");
    buttons.append(this.yes, no);
    this.root.setAttribute("aria-label", text);
    this.root.replaceChildren(make("div", "hw-sentence", text), ...(field ? [field] : []), buttons);
    this.root.hidden = false;
    (field || no).focus();
  }

  end() {
    this.root.hidden = true;
    this.root.replaceChildren();
    if (this.back && this.back.isConnected) this.back.focus();
  }
}

// A panel: `static label`, `request()` (what to ask for: op and arguments), `fill(reply)` (show an answer), and if need
// be `tools()` (buttons of the bar), `actions()` (keys), `foot(element)`, `settled()` (after each look at the state). One that
// can only tell what is so now, whatever the trait `at` says, has `static ofNow = true`; one that has something new to tell
// while a past position is shown, `static always = true`. Every reply has `version` and `position`; `unchanged` without a
// position means that neither moved.
class Panel {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.beat = false;
    this.begin();
    this.build();
    this.puller = new Puller(model, this);
    this.onAt = () => this.showPosition();
    model.on("change:at", this.onAt);
    this.watchVisibility();
    this.clock = setInterval(() => this.showState(), 1000);
    this.showState();
  }

  begin() {}
  tools() { return []; }
  actions() { return {}; }
  settled() {}

  build() {
    const { root } = this;
    const { label, help } = this.constructor;
    root.classList.add("hw-panel");
    root.setAttribute("role", "region");
    root.setAttribute("aria-label", label);
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
    for (const [value, text] of INTERVALS) this.every.append(new Option(text, value));
    this.every.addEventListener("change", () => this.puller.link.setEvery(this.every.value));
    const pause = "Stop or go on asking for changes (space); with shift, of all linked panels";
    this.pauseButton = button("pause", pause, (event) => this.togglePause(event.shiftKey));
    this.newestButton = button("newest", "Go back to the newest position", () => this.goTo(""));
    bar.append(this.dot, this.stateText, this.total, this.position, this.age, make("span", "hw-gap"),
      this.newestButton, this.every, ...this.tools(), this.pauseButton);
    this.message = make("div", "hw-message");
    this.message.setAttribute("role", "alert");
    this.message.hidden = true;
    this.scroll = make("div", "hw-scroll");
    this.scroll.tabIndex = 0;
    this.scroll.setAttribute("role", "group");
    this.scroll.setAttribute("aria-label", help);
    this.scroll.addEventListener("keydown", (event) => this.key(event));
    this.fillFrame(this.scroll);
    root.append(bar, this.message, this.scroll);
    const foot = make("div", "hw-foot");
    if (this.foot(foot)) root.append(foot);
  }

  fillFrame() {}
  foot() { return false; }

  // Keys that are ours end here: a notebook acts on single keys too.
  key(event) {
    if (event.target !== this.scroll || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { " ": () => this.togglePause(event.shiftKey), ...this.actions() }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act(event);
  }

  togglePause(all = false) { this.puller.pause(!this.puller.paused, all); }

  // Another position, of all linked panels.
  goTo(at) {
    if ((this.model.get("at") || "") === at) return;
    this.model.set("at", at);
    this.model.save_changes();
  }

  show(reply) {
    this.message.hidden = !reply.error;
    if (reply.error) {
      this.message.textContent = [reply.error.what, reply.error.todo].filter(Boolean).join(" ");
      return this.showState();
    }
    if (reply.position !== undefined) {
      this.root.dataset.position = reply.position;
      this.root.dataset.at = this.puller.at;
      this.position.title = reply.time ? `committed ${reply.time}` : "";
      this.showPosition();
      this.tellPosition(reply.position);
    }
    this.root.dataset.version = reply.version;
    if (!reply.unchanged) {
      this.beat = !this.beat;
      this.fill(reply);
      this.dot.dataset.beat = this.beat ? "a" : "b";
    }
    this.root.dataset.ready = "1";
    this.showState();
  }

  // Pinned and live must never look alike: another word before the number, a frame around both, another dot.
  showPosition() {
    const { position, at } = this.root.dataset;
    if (position === undefined) return;
    const wanted = this.model.get("at");
    const now = wanted ? `as of now, not ${wanted}` : "as of now";
    const past = at ? `at commit ${grouped(position)}` : `position ${grouped(position)}`;
    this.position.textContent = this.constructor.ofNow ? now : past;
    this.position.classList.toggle("hw-pinned", Boolean(at));
  }

  tellPosition(position) {
    if (this.model.get("position") === position) return;
    this.model.set("position", position);
    this.model.save_changes();
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
    // How old a past position's answer is says nothing.
    this.age.textContent = puller.answered === null || state === "pinned" ? "" : `updated ${ago(Date.now() - puller.answered)}`;
    this.pauseButton.textContent = puller.paused ? "resume" : "pause";
    this.pauseButton.setAttribute("aria-pressed", String(puller.paused));
    this.newestButton.hidden = !puller.at;
    this.every.value = puller.link.every;
    this.pauseButton.disabled = this.newestButton.disabled = this.every.disabled = state === "closed";
    this.settled(state);
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
    this.model.off("change:at", this.onAt);
    this.puller.close();
  }
}

const panel = (kind) => ({
  render({ model, el }) {
    const root = make("div");
    el.append(root);
    const shown = new kind(model, root);
    return () => shown.dispose();
  },
});

// ---- the panel's own module
