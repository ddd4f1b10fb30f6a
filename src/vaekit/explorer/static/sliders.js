// One picture, moved along latents, components and directions; the latent image of a spatial model is painted.

import * as api from "./api.js";
import { nameOf } from "./inspector.js";
import { draw, h, range, select } from "./pictures.js";

const REACH = 3; // standard deviations to either end of a slider

export class SlidersView {
  constructor(app, element) {
    this.app = app;
    this.base = { kind: "new", seed: 0, index: 0 };
    this.steps = {};
    this.cells = [];
    this.undone = [];
    this.canvas = h("canvas", { class: "picture", role: "img", "aria-label": "The picture at these positions" });
    this.caption = h("figcaption");
    this.list = h("div", { class: "sliders" });
    this.inputs = new Map();
    this.request = api.latest("slider", (image, place) => {
      draw(this.canvas, image);
      this.shown = { image, place };
    }, app.fail);
    const button = (text, onclick) => h("button", { type: "button", onclick }, text);
    const figure = h("figure", {}, h("div", { class: "paint" }, this.canvas, this.grid()), this.caption);
    const actions = h("div", { class: "actions" }, button("Reset", () => this.change({}, [])), button("Randomise", () => this.randomise()),
      button("Undo", () => this.undo()), button("Another picture", () => this.start({ kind: "new", seed: 0, index: Math.floor(Math.random() * 1000) })),
      button("Inspect", () => this.shown && app.inspect(this.shown.place, this.shown.image)));
    element.append(h("div", { class: "scroll" }, h("div", { class: "split" },
      h("div", {}, figure, actions, this.brush()), h("div", {}, this.list, this.directions()))));
    app.startSliders = (place) => this.start(place);
    app.listen(() => this.load());
  }

  open() {
    this.load();
    this.update();
  }

  async load() {
    if (!this.app.info.images || this.loaded) return;
    this.loaded = true;
    const sliders = await api.get("/api/sliders");
    if (!sliders.length) this.list.append(h("p", {}, "The model uses none of its latents. Run vaekit evaluate for advice."));
    for (const { name, about } of sliders) this.add(name, about);
  }

  add(name, about) {
    const output = h("output", {}, "0");
    const input = range({ min: -REACH, max: REACH, step: 0.05, value: this.steps[name] ?? 0, "aria-label": name,
      onpointerdown: () => this.remember(), onkeydown: () => this.remember(), oninput: () => {
        this.steps[name] = Number(input.value);
        output.textContent = input.value;
        this.update();
      } });
    this.inputs.set(name, { input, output });
    this.list.append(h("label", { class: "slider" }, h("span", {}, name[0].toUpperCase() + name.slice(1), h("span", { class: "soft" }, ` ${about}`)), output, input));
  }

  start(place) {
    this.remember();
    this.base = place;
    this.change({}, []);
  }

  place() {
    const steps = Object.fromEntries(Object.entries(this.steps).filter(([, value]) => value));
    let place = this.base;
    if (Object.keys(steps).length) place = { kind: "moved", of: place, steps };
    if (this.cells.length) place = { kind: "painted", of: place, cells: this.cells };
    return place;
  }

  update() {
    this.caption.textContent = `From: ${nameOf(this.base)}`;
    this.request(this.place());
    this.drawGrid();
  }

  change(steps, cells) {
    this.steps = { ...steps };
    this.cells = [...cells];
    for (const [name, { input, output }] of this.inputs) {
      input.value = this.steps[name] ?? 0;
      output.textContent = Number(input.value);
    }
    this.update();
  }

  remember() {
    this.undone.push({ base: this.base, steps: { ...this.steps }, cells: [...this.cells] });
    if (this.undone.length > 100) this.undone.shift();
  }

  undo() {
    const last = this.undone.pop();
    if (!last) return;
    this.base = last.base;
    this.change(last.steps, last.cells);
  }

  randomise() {
    this.remember();
    const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
    this.change(Object.fromEntries([...this.inputs.keys()].map((name) => [name, Math.max(-REACH, Math.min(REACH, normal()))])), []);
  }

  // --- The latent image ---

  grid() {
    const shape = this.app.info.latent_shape;
    if (shape.length !== 3) return null;
    [this.channels, this.rows, this.columns] = shape;
    this.overlay = h("canvas", { class: "cells", "aria-label": "Latent image: paint on its cells", width: this.columns, height: this.rows });
    const paint = (event) => {
      const box = this.overlay.getBoundingClientRect();
      const x = Math.floor(((event.clientX - box.left) / box.width) * this.columns);
      const y = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
      if (x < 0 || y < 0 || x >= this.columns || y >= this.rows) return;
      const channel = Number(this.channel?.value ?? 0);
      const same = this.cells.find(([c, row, column]) => c === channel && row === y && column === x);
      if (same) same[3] = Number(this.strength.value);
      else this.cells.push([channel, y, x, Number(this.strength.value)]);
      this.update();
    };
    this.overlay.addEventListener("pointerdown", (event) => {
      this.remember();
      this.cells = this.cells.map((cell) => [...cell]);
      this.overlay.setPointerCapture(event.pointerId);
      paint(event);
    });
    this.overlay.addEventListener("pointermove", (event) => event.buttons && paint(event));
    return this.overlay;
  }

  brush() {
    if (!this.overlay) return null;
    const channels = Array.from({ length: this.channels }, (_, c) => [String(c), `Channel ${c + 1}`]);
    this.channel = select(channels, "0", () => this.drawGrid(), "Channel");
    this.strength = range({ min: -4, max: 4, step: 0.25, value: 2, "aria-label": "Value that the brush adds" });
    return h("p", { class: "row soft" }, "Paint on the picture:", this.channel, this.strength);
  }

  drawGrid() {
    if (!this.overlay || !this.channel) return;
    const context = this.overlay.getContext("2d");
    const scale = 32;
    [this.overlay.width, this.overlay.height] = [this.columns * scale, this.rows * scale];
    context.strokeStyle = "#0067a5";
    context.lineWidth = 2;
    for (const [c, y, x] of this.cells) {
      if (c === Number(this.channel.value)) context.strokeRect(x * scale + 2, y * scale + 2, scale - 4, scale - 4);
    }
  }

  // --- Directions by example ---

  directions() {
    const { app } = this;
    const { classes } = app.info;
    this.groups = h("p", { class: "soft" });
    const make = async (a, b, about) => {
      try {
        const count = app.info.images;
        const found = await api.post("/api/direction", { a: api.mask(a, count), b: api.mask(b, count) });
        this.add(found.name, `${about}; ${Math.round(100 * found.accuracy)} % right on held-out images`);
        app.say("");
      } catch (error) {
        app.fail(error);
      }
    };
    const fromGroups = h("button", { type: "button", onclick: () => make(app.groups?.a ?? [], app.groups?.b ?? [], "from group A to B") }, "Direction from A to B");
    app.listen(() => {
      const size = (group) => app.groups?.[group]?.length ?? 0;
      this.groups.textContent = `Group A has ${size("a").toLocaleString("en")} images, group B ${size("b").toLocaleString("en")}. Select them on the map.`;
    });
    const parts = [h("h2", {}, "Directions by example"), this.groups, h("div", { class: "actions" }, fromGroups)];
    if (classes.length > 1) {
      const towards = async (name) => {
        if (!name) return;
        const { values } = await api.floats("/api/column/class");
        const index = classes.indexOf(name);
        const rows = [...values.keys()];
        await make(rows.filter((row) => values[row] !== index), rows.filter((row) => values[row] === index), `towards ${name}`);
      };
      parts.push(h("p", {}, select([["", "Towards a class …"], ...classes.map((name) => [name, name])], "", towards, "Direction towards a class")));
    }
    return h("section", { class: "directions" }, ...parts);
  }
}
