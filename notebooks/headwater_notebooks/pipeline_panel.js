// The pipeline: boxes from left to right, what feeds a box to the left of it. A box is a button; what is chosen is told
// below, and in the trait `selection`, which works both ways.

const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes = {}, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

class Graph extends Panel {
  static label = "pipeline";
  static ofNow = true; // of the past only positions are kept, not how a source or a worker was
  static help = "parts of the pipeline; space pauses, tab moves from part to part, enter chooses one";

  begin() {
    this.boxes = new Map(); // id -> {group, name, first, second, bar}
    this.nodes = new Map();
    this.drawn = "";
    this.chosen = this.model.get("selection") || "";
    this.onSelection = () => this.choose(this.model.get("selection") || "", false);
    this.model.on("change:selection", this.onSelection);
  }

  request() { return { op: "graph" }; }

  fillFrame(scroll) {
    this.svg = draw("svg", { class: "hw-graph", role: "group", "aria-label": "graph" });
    this.lines = draw("g", { class: "hw-lines" });
    this.parts = draw("g");
    this.svg.append(this.lines, this.parts);
    scroll.append(this.svg);
  }

  foot(foot) {
    this.detail = make("div", "hw-detail");
    this.detail.setAttribute("role", "status");
    foot.append(this.detail);
    return true;
  }

  fill(reply) {
    this.nodes = new Map(reply.nodes.map((node) => [node.id, node]));
    const shape = JSON.stringify([reply.size, reply.nodes.map((node) => [node.id, node.reads, node.at])]);
    if (shape !== this.drawn) {
      this.drawn = shape;
      this.redraw(reply);
    }
    for (const node of reply.nodes) this.write(node);
    this.root.dataset.nodes = reply.nodes.length;
    const count = reply.nodes.filter((node) => node.level === "bad").length;
    this.total.textContent = count ? `${count} in trouble` : `${reply.nodes.length} parts`;
    this.tell();
  }

  redraw({ nodes, box, size }) {
    const [width, height] = box;
    this.svg.setAttribute("width", size[0]);
    this.svg.setAttribute("height", size[1]);
    this.svg.setAttribute("viewBox", `-6 -6 ${size[0]} ${size[1]}`);
    this.lines.replaceChildren();
    this.parts.replaceChildren();
    this.boxes.clear();
    for (const node of nodes) {
      for (const fed of node.reads.map((id) => this.nodes.get(id)).filter(Boolean)) {
        const [left, top, right, bottom] = [fed.at[0] + width, fed.at[1] + height / 2, node.at[0], node.at[1] + height / 2];
        const bend = (left + right) / 2;
        this.lines.append(draw("path", {
          d: `M${left} ${top} C${bend} ${top} ${bend} ${bottom} ${right} ${bottom}`, "data-from": fed.id, "data-to": node.id,
        }));
      }
      this.parts.append(this.box(node, width, height));
    }
  }

  box(node, width, height) {
    const group = draw("g", {
      class: "hw-box", transform: `translate(${node.at[0]} ${node.at[1]})`, tabindex: "0", role: "button", "data-id": node.id,
    });
    const made = {
      group, title: draw("title"), name: draw("text", { x: 14, y: 18, class: "hw-box-name" }),
      first: draw("text", { x: 14, y: 34 }), second: draw("text", { x: 14, y: 49, class: "hw-box-dim" }),
    };
    group.append(made.title, draw("rect", { class: "hw-box-frame", width, height, rx: 5 }),
      draw("rect", { class: "hw-box-bar", width: 6, height, rx: 3 }), made.name, made.first, made.second);
    group.addEventListener("click", () => this.choose(node.id === this.chosen ? "" : node.id, true));
    group.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      event.stopPropagation();
      this.choose(node.id === this.chosen ? "" : node.id, true);
    });
    this.boxes.set(node.id, made);
    return group;
  }

  write(node) {
    const { group, title, name, first, second } = this.boxes.get(node.id);
    const text = (element, value) => { if (element.textContent !== value) element.textContent = value; };
    group.dataset.level = node.level;
    group.setAttribute("aria-label", [node.kind, node.name, ...node.facts, node.more.trouble].filter(Boolean).join(", "));
    group.setAttribute("aria-pressed", String(node.id === this.chosen));
    text(title, node.more.trouble || node.name);
    text(name, node.name.length > 24 ? `\u2026${node.name.slice(-23)}` : node.name);
    text(first, node.facts[0]);
    text(second, node.facts[1]);
  }

  choose(id, byPerson) {
    if (id === this.chosen) return;
    this.chosen = id;
    if (byPerson) {
      this.model.set("selection", id);
      this.model.save_changes();
    }
    for (const [each, { group }] of this.boxes) group.setAttribute("aria-pressed", String(each === id));
    for (const line of this.lines.children) {
      line.classList.toggle("hw-near", line.dataset.from === id || line.dataset.to === id);
    }
    this.tell();
  }

  tell() {
    const node = this.nodes.get(this.chosen);
    this.detail.parentElement.hidden = !node;
    if (!node) return;
    const parts = [make("strong", "", `${node.kind} ${node.name}`)];
    for (const [name, value] of Object.entries(node.more)) {
      if (value === null) continue;
      parts.push(make("span", name === "trouble" ? "hw-trouble" : "", name === "rows" ? `${grouped(value)} rows` : `${name} ${value}`));
    }
    this.detail.replaceChildren(...parts);
  }

  dispose() {
    this.model.off("change:selection", this.onSelection);
    super.dispose();
  }
}

export default panel(Graph);
