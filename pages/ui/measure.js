// Distances and a ruler over the panels of the figure, in the browser alone. A distance is drawn in every panel, follows
// zoom and pan, and is kept by scan and frame until the page is closed.
const SVG = "http://www.w3.org/2000/svg";
const CLICK_PX = 4; // a press that moves less is a click: the next one sets the other end
const RULER_SHARE = 0.3; // of a panel's width, at most
const STEP_PX = 4; // of the keyboard's cross, ten times with Shift
const kept = (document.documentElement.medfusionDistances ??= new Map());

const length = ([a, b], { spacing }) => Math.hypot((b.x - a.x) * spacing[1], (b.y - a.y) * spacing[0]);
const digits = (value) => (value < 10 ? 2 : value < 1000 ? 1 : 0);
const inWords = (line, scale) => `${length(line, scale).toFixed(digits(length(line, scale)))} ${scale.unit}`;

// The longest 1, 2 or 5 times a power of ten that is at most so long.
const round = (most) => {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].find((step) => step * power <= most * (1 + 1e-9)) * power;
};

const draw = (parent, name, attributes, text = "") => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  parent.append(made);
  return made;
};

const panelsOf = (figure) =>
  Object.values(figure._fullLayout?._plots ?? {})
    .filter(({ xaxis, yaxis }) => xaxis._length && yaxis._length)
    .map(({ xaxis, yaxis }) => ({
      left: xaxis._offset, top: yaxis._offset, width: xaxis._length, height: yaxis._length,
      toScreen: ({ x, y }) => ({ x: xaxis._offset + xaxis.l2p(x), y: yaxis._offset + yaxis.l2p(y) }),
      toScan: ({ x, y }) => ({ x: xaxis.p2l(x - xaxis._offset), y: yaxis.p2l(y - yaxis._offset) }),
    })); // prettier-ignore

const under = (figure, { x, y }) =>
  panelsOf(figure).find((one) => x >= one.left && y >= one.top && x <= one.left + one.width && y <= one.top + one.height);

const inside = ({ x, y }, { width, height }) => ({
  x: Math.min(Math.max(x, 0), width),
  y: Math.min(Math.max(y, 0), height),
});

const drawRuler = (into, panel, scale) => {
  const perScreen = (panel.toScan({ x: panel.left + 1, y: 0 }).x - panel.toScan({ x: panel.left, y: 0 }).x) * scale.spacing[1];
  const shown = round(RULER_SHARE * panel.width * perScreen);
  const [left, base, long] = [panel.left + 8, panel.top + panel.height - 8, shown / perScreen];
  const ticks = [0, 1, 2, 3, 4, 5].map((part) => `M${left + (part * long) / 5},${base}v${part % 5 ? -4 : -8}`).join("");
  const path = `M${left},${base}h${long}${ticks}`;
  draw(into, "path", { d: path, class: "halo" });
  draw(into, "path", { d: path, class: "line" });
  draw(into, "text", { x: left, y: base - 13, class: "ruler" }, `${Number(shown.toPrecision(1))} ${scale.unit}`);
};

const drawLine = (into, panel, line, scale) => {
  const [a, b] = line.map(panel.toScreen);
  for (const style of ["halo", "line"]) {
    draw(into, "line", { x1: a.x, y1: a.y, x2: b.x, y2: b.y, class: style });
    for (const end of [a, b]) draw(into, "circle", { cx: end.x, cy: end.y, r: 3, class: style });
  }
  const right = b.x >= a.x ? b : a; // the text stands beyond the right end, or before it where there is no room
  const words = inWords(line, scale);
  const fits = right.x + 8 + 8 * words.length < panel.left + panel.width;
  draw(into, "text", { x: right.x + (fits ? 8 : -8), y: right.y - 8, "text-anchor": fits ? "start" : "end" }, words);
};

// One layer over one figure. begin, move, end: of a drag in screen coordinates of the figure.
class Layer {
  constructor(figure, scale, changed) {
    Object.assign(this, { figure, scale, changed, draft: null, waiting: false, cross: null });
    this.svg = document.createElementNS(SVG, "svg");
    for (const [key, value] of Object.entries({ class: "distance-layer", "aria-hidden": "true" })) this.svg.setAttribute(key, value);
    for (const event of ["plotly_relayouting", "plotly_relayout", "plotly_afterplot"]) figure.on(event, () => this.redraw());
    this.redraw();
  }

  get lines() {
    return kept.get(this.scale.scan) ?? [];
  }

  place(event) {
    const box = this.figure.querySelector(".svg-container").getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  begin(event) {
    const at = this.place(event);
    const panel = under(this.figure, at);
    if (!panel) return false;
    if (this.waiting) return this.finish(panel.toScan(at)), true;
    this.from = at;
    this.panel = panel;
    const start = inside(panel.toScan(at), this.scale);
    this.draft = [start, start];
    return true;
  }

  move(event) {
    if (!this.draft) return;
    this.draft = [this.draft[0], inside(this.panel.toScan(this.place(event)), this.scale)];
    this.redraw();
  }

  end(event) {
    if (!this.draft || this.waiting) return;
    const at = this.place(event);
    if (Math.hypot(at.x - this.from.x, at.y - this.from.y) < CLICK_PX) this.waiting = true;
    else this.finish(this.panel.toScan(at));
  }

  finish(at) {
    const line = [this.draft[0], inside(at, this.scale)];
    this.cancel();
    if (length(line, this.scale) > 0) kept.set(this.scale.scan, [...this.lines, line]);
    this.redraw();
    this.changed();
  }

  cancel() {
    this.draft = null;
    this.waiting = false;
    this.redraw();
  }

  clear() {
    kept.delete(this.scale.scan);
    this.cancel();
    this.changed();
  }

  // The cross of the keyboard: arrows move it, Enter sets an end. Returns whether the key was for it.
  press(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const [panel] = panelsOf(this.figure);
    if (!panel) return false;
    if (by) {
      this.cross ??= { x: panel.left + panel.width / 2, y: panel.top + panel.height / 2 };
      const step = event.shiftKey ? 10 * STEP_PX : STEP_PX;
      this.cross = { x: this.cross.x + by[0] * step, y: this.cross.y + by[1] * step };
      this.cross.x = Math.min(Math.max(this.cross.x, panel.left), panel.left + panel.width);
      this.cross.y = Math.min(Math.max(this.cross.y, panel.top), panel.top + panel.height);
      if (this.draft) this.draft = [this.draft[0], inside(panel.toScan(this.cross), this.scale)];
    } else if (event.key === "Enter" && this.cross) {
      const at = inside(panel.toScan(this.cross), this.scale);
      if (this.draft) this.finish(at);
      else [this.draft, this.waiting, this.panel] = [[at, at], true, panel];
    } else if (event.key === "Escape" && this.draft) this.cancel();
    else return false;
    this.redraw();
    return true;
  }

  redraw() {
    const box = this.figure.querySelector(".svg-container");
    if (!box) return;
    if (this.svg.parentNode !== box) box.append(this.svg); // Plotly empties it when it draws anew
    this.svg.replaceChildren();
    for (const panel of panelsOf(this.figure)) {
      const id = `distance-clip-${Math.round(panel.left)}-${Math.round(panel.top)}`;
      const clip = draw(draw(this.svg, "defs", {}), "clipPath", { id });
      draw(clip, "rect", { x: panel.left, y: panel.top, width: panel.width, height: panel.height });
      const group = draw(this.svg, "g", { "clip-path": `url(#${id})` });
      drawRuler(group, panel, this.scale);
      for (const line of [...this.lines, ...(this.draft ? [this.draft] : [])]) drawLine(group, panel, line, this.scale);
    }
    if (this.cross) {
      const d = `M${this.cross.x - 10},${this.cross.y}h20M${this.cross.x},${this.cross.y - 10}v20`;
      for (const style of ["halo", "line"]) draw(this.svg, "path", { d, class: style });
    }
  }

  inWords() {
    return this.lines.map((line) => inWords(line, this.scale)).join(", ");
  }
}
