// All images of the run in the plane: dots from afar, thumbnails nearby; any place of it can be decoded.

import * as api from "./api.js";
import { Coloring } from "./colors.js";
import { draw, h, number, select, tileOf } from "./pictures.js";
import { PointIndex, Points } from "./points.js";
import { THUMBNAIL, Thumbnails } from "./thumbnails.js";

const REST = 125; // milliseconds that the pointer rests before an image is shown
const CATCH = 14; // pixels around the pointer in which an image is found
const SHOWN_SELECTION = 120;
const countOf = (rows) => `${rows.length.toLocaleString("en")} image${rows.length === 1 ? "" : "s"}`;
export class MapView {
  constructor(app, element) {
    this.app = app;
    this.mode = "move";
    this.selected = [];
    app.groups = { a: [], b: [] };
    this.ground = h("canvas", { "aria-hidden": "true" });
    this.dots = h("canvas", { "aria-hidden": "true" });
    this.above = h("canvas", { "aria-hidden": "true" });
    this.probe = h("canvas", { class: "probe", hidden: true });
    this.hover = h("div", { class: "hover", hidden: true });
    this.note = h("p", { class: "note" });
    this.ink = h("span", { hidden: true });
    this.empty = h("div", { class: "empty" }, h("p", {}, "The map appears when all images are encoded. Meanwhile, look at new images on the wall."));
    this.area = h("div", { class: "map", tabindex: 0, role: "application",
      "aria-label": "Map of all images. Arrow keys move, plus and minus zoom, Enter shows the picture in the middle." },
      this.ground, this.dots, this.above, this.probe, this.hover, this.note, this.empty, this.ink);
    this.bar = h("div", { class: "bar" });
    this.legend = h("div", { class: "legend" });
    element.append(this.bar, this.area, this.legend);
    this.probeRequest = api.latest("map", (image, place) => this.showProbe(image, place), app.fail);
    this.listenToPointer();
    this.area.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resized()).observe(this.area);
    app.listen(() => this.changed());
    app.mark = (place) => this.mark(place).catch(app.fail);
  }

  open() {
    this.resized();
  }

  async changed() {
    const { info, state } = this.app;
    const wanted = state.projection in info.projections ? state.projection : "pca";
    if (!(wanted in info.projections) || this.loading) return;
    const known = Object.keys(info.projections).join();
    if (this.projection === wanted && this.known === known) return;
    this.loading = true;
    try {
      if (this.projection !== wanted) await this.load(wanted);
      this.known = known;
      this.controls();
      if (state.density && !this.density) await this.showDensity();
    } catch (error) {
      this.app.fail(error);
    }
    this.loading = false;
  }

  async load(projection) {
    const { values, low, edge } = await api.floats(`/api/coordinates/${projection}`);
    this.points ??= new Points(this.dots);
    Object.assign(this, { projection, xy: values, low, edge });
    this.count = values.length / 2;
    this.index = new PointIndex(values, low, edge);
    this.points.setPositions(values);
    this.thumbnails = new Thumbnails(this, () => this.redraw());
    this.empty.hidden = true;
    this.view = this.viewFromAddress();
    this.isWhole = !this.view;
    this.view ??= this.wholeView();
    const columns = this.app.info.columns;
    await this.colorBy(columns.some(({ name }) => name === this.app.state.color) ? this.app.state.color : columns[0].name);
  }

  // --- Where one looks ---

  wholeView() {
    const [width, height] = [this.area.clientWidth || 800, this.area.clientHeight || 500];
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < this.count; i++) {
      x0 = Math.min(x0, this.xy[2 * i]);
      x1 = Math.max(x1, this.xy[2 * i]);
      y0 = Math.min(y0, this.xy[2 * i + 1]);
      y1 = Math.max(y1, this.xy[2 * i + 1]);
    }
    const scale = 0.92 * Math.min(width / (x1 - x0 || 1), height / (y1 - y0 || 1));
    return { x: (x0 + x1) / 2, y: (y0 + y1) / 2, scale };
  }

  viewFromAddress() {
    const [projection, ...numbers] = (this.app.state.view ?? "").split(",");
    const [x, y, scale] = numbers.map(Number);
    return projection === this.projection && [x, y, scale].every(Number.isFinite) && scale > 0 ? { x, y, scale } : null;
  }

  toScreen(x, y) {
    return [this.area.clientWidth / 2 + (x - this.view.x) * this.view.scale, this.area.clientHeight / 2 - (y - this.view.y) * this.view.scale];
  }

  toMap(left, top) {
    return [this.view.x + (left - this.area.clientWidth / 2) / this.view.scale, this.view.y - (top - this.area.clientHeight / 2) / this.view.scale];
  }

  zoom(factor, left = this.area.clientWidth / 2, top = this.area.clientHeight / 2) {
    const [x, y] = this.toMap(left, top);
    const least = (0.3 * Math.min(this.area.clientWidth, this.area.clientHeight)) / this.edge;
    const scale = Math.max(least, Math.min(this.view.scale * factor, 3e4 / this.edge * 10));
    this.view = { x: x - (x - this.view.x) * (this.view.scale / scale), y: y - (y - this.view.y) * (this.view.scale / scale), scale };
    this.moved();
  }

  pan(left, top) {
    this.view = { ...this.view, x: this.view.x - left / this.view.scale, y: this.view.y + top / this.view.scale };
    this.moved();
  }

  moved() {
    this.isWhole = false;
    this.moving = true;
    clearTimeout(this.resting);
    this.resting = setTimeout(() => {
      this.moving = false;
      this.app.set({ view: [this.projection, ...["x", "y", "scale"].map((name) => this.view[name].toPrecision(6))].join() });
      this.redraw();
    }, 160);
    this.redraw();
  }

  resized() {
    for (const canvas of [this.ground, this.dots, this.above]) {
      canvas.width = Math.max(1, Math.round(this.area.clientWidth * devicePixelRatio));
      canvas.height = Math.max(1, Math.round(this.area.clientHeight * devicePixelRatio));
    }
    if (!this.view || !this.area.clientWidth) return;
    if (this.isWhole) this.view = this.wholeView();
    this.redraw();
  }

  // --- Drawing ---

  redraw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (!this.view || !this.area.clientWidth) return;
      const near = this.view.scale * this.edge / Math.sqrt(this.count) > 0.75 * THUMBNAIL;
      const size = Math.max(3, Math.min(10, 250 / Math.sqrt(this.count) + Math.log2(1 + this.view.scale * this.edge / 800)));
      this.points.draw(this.view, near ? 3 : size, this.moving);
      this.drawGround();
      this.drawAbove(near);
      this.frames = (this.frames ?? 0) + 1;
    });
  }

  context(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    return context;
  }

  // A colour of the style sheet, as canvases need it.
  color(name) {
    this.ink.style.color = `var(--${name})`;
    return getComputedStyle(this.ink).color;
  }

  drawGround() {
    const context = this.context(this.ground);
    if (!this.density || this.projection !== "pca" || !this.app.state.density) return;
    const [left, top] = this.toScreen(this.density.low[0], this.density.high[1]);
    const [right, bottom] = this.toScreen(this.density.high[0], this.density.low[1]);
    context.imageSmoothingEnabled = true;
    context.drawImage(this.density.canvas, left, top, right - left, bottom - top);
  }

  drawAbove(near) {
    const context = this.context(this.above);
    if (near) this.thumbnails.draw(context, this.view);
    if (this.lasso?.length > 1) {
      context.strokeStyle = context.fillStyle = this.color("accent");
      context.lineWidth = 2;
      context.beginPath();
      this.lasso.forEach(([x, y]) => context.lineTo(...this.toScreen(x, y)));
      context.closePath();
      context.stroke();
      context.globalAlpha = 0.12;
      context.fill();
      context.globalAlpha = 1;
    }
    if (this.app.path && this.app.morph.length > 1) this.drawPath(context);
    if (this.marked) this.drawMark(context);
  }

  // Shows where the inspected picture lies.
  async mark(place) {
    this.marked = null;
    if (!this.view) return;
    const { at } = place.kind === "map" && place.projection === this.projection ? { at: [place.at]} : await api.post("/api/path", { places: [place], projection: this.projection });
    this.marked = at[0];
    this.redraw();
  }

  drawMark(context) {
    const [x, y] = this.toScreen(...this.marked);
    for (const [width, color] of [[5, this.color("paper")], [2.5, this.color("accent")]]) {
      context.lineWidth = width;
      context.strokeStyle = color;
      context.beginPath();
      context.arc(x, y, 11, 0, 2 * Math.PI);
      context.moveTo(x - 17, y);
      context.lineTo(x - 6, y);
      context.moveTo(x + 6, y);
      context.lineTo(x + 17, y);
      context.stroke();
    }
  }

  drawPath(context) {
    const { at, outside } = this.app.path;
    const colors = [this.color("ink"), this.color("warn")];
    context.lineWidth = 2.5;
    for (let i = 1; i < at.length; i++) {
      context.strokeStyle = colors[Number(outside[i])];
      context.setLineDash(outside[i] ? [4, 4] : []);
      context.beginPath();
      context.moveTo(...this.toScreen(...at[i - 1]));
      context.lineTo(...this.toScreen(...at[i]));
      context.stroke();
    }
    context.setLineDash([]);
  }

  async colorBy(name) {
    const column = this.app.info.columns.find((other) => other.name === name);
    const { values } = await api.floats(`/api/column/${encodeURIComponent(name)}`);
    this.coloring = new Coloring(column, values, () => {
      this.points.setPalette(this.coloring.bytes());
      this.redraw();
    });
    this.points.setColors(this.coloring.indices);
    this.points.setPalette(this.coloring.bytes());
    this.legend.replaceChildren(...this.coloring.legend());
    this.redraw();
  }

  isHidden(row) {
    return this.coloring.isHidden(row);
  }

  // --- Controls ---

  controls() {
    const { app } = this;
    const { info, state } = app;
    const modes = h("div", { class: "group", role: "group", "aria-label": "What dragging does" });
    for (const [mode, text, title] of [["move", "Move", "Drag to move; hold still to see an image"],
      ["decode", "Decode", "Drag to see the picture at any place, also between the images"], ["select", "Select", "Draw around images"]]) {
      modes.append(h("button", { type: "button", title, "aria-pressed": this.mode === mode, onclick: (event) => {
        this.mode = mode;
        for (const button of modes.children) button.setAttribute("aria-pressed", button === event.target);
        this.hideProbe();
      } }, text));
    }
    const projections = Object.entries(info.projections);
    if (!("tsne" in info.projections) && info.jobs[1].state !== "running") projections.push(["tsne", "t-SNE (compute)"]);
    const parts = [modes,
      select(projections.map(([name, text]) => [name, text]), this.projection, (name) => this.chooseProjection(name), "Projection"),
      h("label", {}, "Colour", select(info.columns.map(({ name }) => [name, name]), this.coloring.column.name, (name) => {
        app.set({ color: name });
        this.colorBy(name).catch(app.fail);
      }, "Colour by")),
      h("label", {}, h("input", { type: "checkbox", checked: Boolean(state.density), disabled: this.projection !== "pca", onchange: (event) => {
        app.set({ density: event.target.checked ? "1" : "" });
        this.showDensity().catch(app.fail);
      } }), "Density of the prior"),
      h("button", { type: "button", onclick: () => { this.view = this.wholeView(); this.moved(); this.isWhole = true; } }, "Show all")];
    this.bar.replaceChildren(...parts);
    this.note.textContent = this.projection === "pca" ? "Pictures are decoded from the plane of the first two components: all others are at their mean."
      : "Pictures are decoded from the mean of the latents of the nearest 8 images.";
    this.note.hidden = this.mode !== "decode";
    modes.addEventListener("click", () => { this.note.hidden = this.mode !== "decode"; });
  }

  async chooseProjection(name) {
    const { app } = this;
    app.set({ projection: name });
    if (name in app.info.projections) return this.changed();
    await api.post("/api/tsne").catch(app.fail);
    await app.poll();
  }

  async showDensity() {
    const { app } = this;
    if (app.state.density && !this.density) {
      await api.post("/api/density");
      await app.poll();
      const given = await api.get("/api/density");
      if (!given) return setTimeout(() => this.showDensity().catch(app.fail), 700);
      const cells = Uint8Array.from(atob(given.cells), (letter) => letter.charCodeAt(0));
      const image = new ImageData(given.size, given.size);
      cells.forEach((value, i) => {
        const place = 4 * ((given.size - 1 - Math.floor(i / given.size)) * given.size + (i % given.size));
        image.data.set([110, 110, 160, 0.75 * value], place);
      });
      const canvas = document.createElement("canvas");
      draw(canvas, image);
      this.density = { ...given, canvas };
    }
    this.redraw();
  }

  // --- Pointer and keys ---

  listenToPointer() {
    const at = (event) => {
      const box = this.area.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const pointers = new Map();
    this.area.addEventListener("wheel", (event) => {
      if (!this.view) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...at(event));
    }, { passive: false });
    this.area.addEventListener("pointerdown", (event) => {
      if (!this.view || event.button) return;
      this.area.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, at(event));
      this.start = at(event);
      this.dragged = false;
      this.hover.hidden = true;
      if (this.mode === "decode") this.moveProbe(...at(event));
      if (this.mode === "select") this.lasso = [this.toMap(...at(event))];
    });
    this.area.addEventListener("pointermove", (event) => {
      if (!this.view) return;
      const now = at(event);
      const before = pointers.get(event.pointerId);
      if (before) this.dragged ||= Math.hypot(now[0] - this.start[0], now[1] - this.start[1]) > 5;
      if (!before) return this.mode === "decode" ? this.moveProbe(...now) : this.wait(...now);
      if (pointers.size === 2) {
        const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
        const length = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
        this.zoom(length(now) / Math.max(1, length(before)), ...other);
      } else if (this.mode === "move") this.pan(now[0] - before[0], now[1] - before[1]);
      else if (this.mode === "decode") this.moveProbe(...now);
      else {
        this.lasso.push(this.toMap(...now));
        this.redraw();
      }
      pointers.set(event.pointerId, now);
    });
    this.area.addEventListener("pointerup", (event) => {
      if (!pointers.delete(event.pointerId) || !this.view) return;
      const [left, top] = at(event);
      if (this.mode === "decode") this.app.inspect(this.placeAt(left, top));
      else if (!this.dragged) this.click(left, top);
      else if (this.mode === "select") this.select();
    });
    this.area.addEventListener("pointerleave", () => {
      clearTimeout(this.waiting);
      this.hover.hidden = true;
      this.hideProbe();
    });
  }

  key(event) {
    if (!this.view || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 40;
    const actions = { ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0), ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step), "+": () => this.zoom(1.3), "=": () => this.zoom(1.3), "-": () => this.zoom(1 / 1.3),
      Enter: () => this.app.inspect(this.placeAt(this.area.clientWidth / 2, this.area.clientHeight / 2)), Escape: () => this.clear() };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
    if (this.mode === "decode") this.moveProbe(this.area.clientWidth / 2, this.area.clientHeight / 2);
  }

  nearest(left, top) {
    const [x, y] = this.toMap(left, top);
    return this.index.nearest(x, y, CATCH / this.view.scale, (row) => !this.isHidden(row));
  }

  click(left, top) {
    const row = this.nearest(left, top);
    if (row >= 0) this.app.inspect({ kind: "image", row });
    else this.clear();
  }

  wait(left, top) {
    clearTimeout(this.waiting);
    this.hover.hidden = true;
    this.waiting = setTimeout(() => this.showHover(left, top), REST);
  }

  async showHover(left, top) {
    const row = this.nearest(left, top);
    if (row < 0) return;
    const waiting = this.waiting;
    const [[image], facts] = await Promise.all([api.originals([row]), api.get(`/api/image/${row}`)]);
    if (waiting !== this.waiting) return;
    const canvas = h("canvas", { class: "picture" });
    draw(canvas, image);
    const lines = [facts.file, facts.class, facts["log-likelihood"] == null ? null : `ELBO ${number(facts["log-likelihood"])} nats`];
    this.hover.replaceChildren(canvas, ...lines.filter(Boolean).map((line) => h("div", {}, line)));
    this.hover.hidden = false;
    this.placeBeside(this.hover, left, top);
  }

  placeBeside(element, left, top) {
    const [width, height] = [element.offsetWidth, element.offsetHeight];
    const x = left + 18 + width > this.area.clientWidth ? left - 18 - width : left + 18;
    const y = Math.max(4, Math.min(top - height / 2, this.area.clientHeight - height - 4));
    element.style.left = `${Math.max(4, x)}px`;
    element.style.top = `${y}px`;
  }

  placeAt(left, top) {
    return { kind: "map", projection: this.projection, at: this.toMap(left, top) };
  }

  moveProbe(left, top) {
    this.probeAt = [left, top];
    this.probeRequest(this.placeAt(left, top));
  }

  showProbe(image) {
    if (!this.probeAt) return;
    draw(this.probe, image);
    this.probe.hidden = false;
    this.placeBeside(this.probe, ...this.probeAt);
  }

  hideProbe() {
    this.probeAt = null;
    this.probe.hidden = true;
  }

  // --- Selection ---

  select() {
    const polygon = this.lasso;
    const xs = polygon.map(([x]) => x);
    const ys = polygon.map(([, y]) => y);
    const inside = (x, y) => {
      let within = false;
      for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
        const [[ax, ay], [bx, by]] = [polygon[i], polygon[j]];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
      }
      return within;
    };
    const rows = [];
    for (const row of this.index.inside(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys))) {
      if (!this.isHidden(row) && inside(this.xy[2 * row], this.xy[2 * row + 1])) rows.push(row);
    }
    this.setSelected(rows.sort((a, b) => a - b));
  }

  setSelected(rows) {
    this.selected = rows;
    this.dimmed = null;
    if (rows.length) {
      this.dimmed = new Float32Array(this.count).fill(1);
      for (const row of rows) this.dimmed[row] = 0;
    }
    this.points.setDimmed(this.dimmed ?? new Float32Array(this.count));
    this.redraw();
    this.showSelection().catch(this.app.fail);
  }

  clear() {
    this.lasso = null;
    if (this.selected.length) this.setSelected([]);
    this.redraw();
  }

  async showSelection() {
    const { app, selected } = this;
    if (!selected.length) return app.inspector.selection.replaceChildren();
    const shown = Math.min(selected.length, SHOWN_SELECTION);
    const rows = Array.from({ length: shown }, (_, i) => selected[Math.floor((i * selected.length) / shown)]);
    const images = await api.originals(rows);
    if (this.selected !== selected) return;
    const group = (name) => h("button", { type: "button", onclick: () => {
      app.groups[name] = selected;
      app.notify();
      app.say(`Group ${name.toUpperCase()} has ${countOf(selected)}. Directions are made under “Sliders”.`);
    } }, `Make group ${name.toUpperCase()}`);
    const tiles = images.map((image, i) => tileOf(image, `Image ${rows[i] + 1}`, () => app.inspect({ kind: "image", row: rows[i] })));
    app.inspector.selection.replaceChildren(h("h2", {}, `Selected: ${countOf(selected)}`),
      h("div", { class: "actions" }, group("a"), group("b"), h("button", { type: "button", onclick: () => this.clear() }, "Clear")),
      h("p", { class: "soft" }, shown < selected.length ? `${shown} of them, evenly spread:` : ""),
      h("div", { class: "strip selected" }, ...tiles));
  }
}
