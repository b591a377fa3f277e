// The slider: commits along the clock as bars, the position as a line among them. It is one of its link: what it shows is
// where the others are, and setting its `at` sends them all.

const WINDOWS = [["", "all"], ["86400", "last day"], ["3600", "last hour"], ["600", "last 10 min"]];
const [TRACK_WIDTH, TRACK_HEIGHT] = [1000, 64];
const TRACK_SVG = "http://www.w3.org/2000/svg";

function mark(tag, className, attributes) {
  const node = document.createElementNS(TRACK_SVG, tag);
  node.setAttribute("class", className);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

class TimeSlider extends Panel {
  static label = "timeline";
  static help = "commits; left and right step, home and end go to the oldest and the newest, page keys further";
  static always = true; // commits arrive also while a past one is shown

  begin() {
    this.known = null; // the last answer
    this.wanted = null; // a commit that was asked for and is not shown yet
  }

  request() { return { op: "timeline", window: this.span && this.span.value ? Number(this.span.value) : null }; }

  fillFrame(scroll) {
    scroll.tabIndex = -1;
    const box = make("div", "hw-timeline");
    this.track = mark("svg", "hw-track", {
      viewBox: `0 0 ${TRACK_WIDTH} ${TRACK_HEIGHT}`, preserveAspectRatio: "none", role: "slider", tabindex: "0",
      "aria-label": "position",
    });
    this.bars = mark("g", "", {});
    this.here = mark("line", "hw-here", { y1: 0, y2: TRACK_HEIGHT });
    this.ghost = mark("line", "hw-wanted", { y1: 0, y2: TRACK_HEIGHT });
    this.track.append(this.bars, this.ghost, this.here);
    this.track.addEventListener("keydown", (event) => this.step(event));
    this.track.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.track.setPointerCapture(event.pointerId);
      this.drag(event);
    });
    this.track.addEventListener("pointermove", (event) => { if (event.buttons & 1) this.drag(event); });
    const ends = make("div", "hw-ends");
    this.first = make("span");
    this.last = make("span");
    ends.append(this.first, this.last);
    box.append(this.track, ends, this.moves());
    scroll.append(box);
  }

  moves() {
    const row = make("div", "hw-moves");
    this.back = button("\u2039", "Previous commit (left)", () => this.move(-1));
    this.on = button("\u203a", "Next commit (right)", () => this.move(1));
    this.live = button("live", "Follow the newest position (end)", () => this.go(null));
    this.when = make("span", "hw-when");
    this.field = make("input", "hw-input hw-goto");
    this.field.placeholder = "commit, tag:name or a time";
    this.field.title = "A commit, a tag or a time: enter goes there";
    this.field.setAttribute("aria-label", "go to position");
    this.field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") this.goTyped();
    });
    this.span = make("select", "hw-select");
    this.span.title = "How much of the history the slider spans";
    this.span.setAttribute("aria-label", "span");
    for (const [value, text] of WINDOWS) this.span.append(new Option(text, value));
    this.span.addEventListener("change", () => this.puller.change());
    row.append(this.back, this.on, this.live, this.when, make("span", "hw-gap"), this.field, this.span);
    return row;
  }

  // All of a link pause together: what else would a pause of the slider mean.
  togglePause() { super.togglePause(true); }

  goTyped() {
    const text = this.field.value.trim();
    if (!text) return;
    this.goTo(/^(newest|latest|live|now)$/i.test(text) ? "" : /^\d+$/.test(text) ? `commit:${text}` : text);
    this.field.value = "";
  }

  // To a commit within what can be read; null is the newest, whatever that is.
  go(commit) {
    if (!this.known || this.known.newest === "0") return;
    if (commit === null) {
      this.wanted = null;
      this.goTo("");
    } else {
      const [oldest, newest] = [BigInt(this.known.oldest), BigInt(this.known.newest)];
      this.wanted = commit < oldest ? oldest : commit > newest ? newest : commit;
      this.goTo(`commit:${this.wanted}`);
    }
    this.place();
  }

  move(by) {
    if (!this.known) return;
    const from = this.wanted === null ? BigInt(this.root.dataset.position) : this.wanted;
    if (by > 0 && from >= BigInt(this.known.newest)) this.go(null);
    else this.go(from + BigInt(by));
  }

  step(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.known) return;
    const page = Math.max(2, Math.round(Number(BigInt(this.known.newest) - BigInt(this.known.oldest)) / 20));
    const act = {
      ArrowLeft: () => this.move(-1), ArrowDown: () => this.move(-1), ArrowRight: () => this.move(1), ArrowUp: () => this.move(1),
      PageDown: () => this.move(-page), PageUp: () => this.move(page), Home: () => this.go(BigInt(this.known.oldest)),
      End: () => this.go(null), " ": () => this.togglePause(),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  drag(event) {
    if (!this.known) return;
    const box = this.track.getBoundingClientRect();
    const place = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    if (place >= 0.995) this.go(null);
    else this.go(this.commitAt(place));
    this.track.focus();
  }

  // Where a commit stands between 0 and 1, and what stands somewhere: within a stretch of time commits are spread evenly.
  placeOf(commit) {
    const edges = this.known.edges;
    let n = 0;
    while (n < edges.length - 2 && BigInt(edges[n + 1]) < commit) n += 1;
    const [low, high] = [BigInt(edges[n]), BigInt(edges[n + 1] || edges[n])];
    const within = high > low ? Number(commit - low) / Number(high - low) : 1;
    return Math.min(1, Math.max(0, (n + within) / Math.max(1, edges.length - 1)));
  }

  commitAt(place) {
    const edges = this.known.edges;
    const stretches = Math.max(1, edges.length - 1);
    const n = Math.min(stretches - 1, Math.floor(place * stretches));
    const [low, high] = [BigInt(edges[n]), BigInt(edges[n + 1] || edges[n])];
    const into = BigInt(Math.round((place * stretches - n) * Number(high - low)));
    return low + into > low || low > 0n ? low + into : 1n;
  }

  fill(reply) {
    this.known = reply;
    this.total.textContent = reply.newest === "0" ? "no commits" : `${grouped(reply.newest)} commits`;
    this.draw(reply);
    this.first.textContent = reply.newest === "0" ? "" : `${moment(reply.start)} \u00b7 readable from commit ${grouped(reply.oldest)}`;
    this.last.textContent = reply.more_tags ? `${reply.more_tags} more tags` : "";
    this.root.dataset.newest = reply.newest;
    this.showTime(reply);
  }

  // After each answer, also one that says that nothing changed but the time.
  settled(state) {
    const off = state === "closed" || !this.known;
    for (const control of [this.back, this.on, this.live, this.field]) control.disabled = off;
    this.newestButton.hidden = true; // it has its own
    this.live.setAttribute("aria-pressed", String(!this.puller.at));
    if (this.wanted !== null && this.root.dataset.position === String(this.wanted)) this.wanted = null;
    if (this.known) this.place();
  }

  showTime(reply) { this.when.textContent = reply.time ? moment(reply.time) : ""; }

  draw({ edges, tags, oldest }) {
    const counts = edges.slice(1).map((edge, n) => Number(BigInt(edge) - BigInt(edges[n])));
    const most = Math.max(1, ...counts);
    const width = TRACK_WIDTH / Math.max(1, counts.length);
    const nodes = [mark("line", "hw-base", { x1: 0, x2: TRACK_WIDTH, y1: TRACK_HEIGHT - 0.5, y2: TRACK_HEIGHT - 0.5 })];
    counts.forEach((count, n) => {
      if (!count) return;
      const height = Math.max(2, Math.round((TRACK_HEIGHT - 6) * count / most));
      const bar = mark("rect", "hw-count", {
        x: n * width, width: Math.max(width - 1, 0.5), y: TRACK_HEIGHT - height, height,
      });
      const title = document.createElementNS(TRACK_SVG, "title");
      title.textContent = `${grouped(count)} commits, up to commit ${grouped(edges[n + 1])}`;
      bar.append(title);
      nodes.push(bar);
    });
    for (const { name, commit } of tags) {
      if (BigInt(commit) < BigInt(oldest) && BigInt(commit) < BigInt(edges[0])) continue;
      const x = this.placeOf(BigInt(commit)) * TRACK_WIDTH;
      const line = mark("line", "hw-tag", { x1: x, x2: x, y1: 0, y2: TRACK_HEIGHT });
      const title = document.createElementNS(TRACK_SVG, "title");
      title.textContent = `tag:${name}, commit ${grouped(commit)}`;
      line.append(title);
      nodes.push(line);
    }
    this.bars.replaceChildren(...nodes);
  }

  place() {
    const { position } = this.root.dataset;
    if (!position || !this.known.edges.length) return;
    const put = (line, commit) => {
      const x = Math.min(TRACK_WIDTH - 1, Math.max(1, this.placeOf(commit) * TRACK_WIDTH));
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    };
    put(this.here, BigInt(position));
    this.ghost.style.display = this.wanted === null ? "none" : "";
    if (this.wanted !== null) put(this.ghost, this.wanted);
    this.track.setAttribute("aria-valuemin", this.known.oldest);
    this.track.setAttribute("aria-valuemax", this.known.newest);
    this.track.setAttribute("aria-valuenow", position);
    this.track.setAttribute("aria-valuetext", `commit ${grouped(position)}, ${this.when.textContent}`);
  }
}

export default panel(TimeSlider);
