// A path through two or more pictures, played.

import * as api from "./api.js";
import { nameOf } from "./inspector.js";
import { download, draw, h, range, tileOf } from "./pictures.js";

const FRAMES = 30; // between two pictures
const MILLISECONDS = 60;

export class MorphView {
  constructor(app, element) {
    this.app = app;
    this.chosen = h("div", { class: "strip" });
    this.canvas = h("canvas", { class: "picture", role: "img", "aria-label": "The morph at this position" });
    this.scrub = range({ min: 0, max: 1, step: "any", value: 0, "aria-label": "Position", oninput: () => this.show() });
    this.play = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.toggle() }, "Play");
    this.warning = h("p", { class: "warn", role: "status" });
    this.help = h("p", { class: "soft" }, "Add two or more pictures: select one anywhere, your own too, and press “Add to morph”.");
    const save = (format, text) => h("button", { type: "button", onclick: () => this.save(format) }, text);
    const linear = h("input", { type: "checkbox", onchange: (event) => { this.linear = event.target.checked; this.build(); } });
    const clear = h("button", { type: "button", onclick: () => { app.morph.length = 0; app.notify(); } }, "Remove all");
    const random = h("button", { type: "button", onclick: () => { app.morph.push(this.random()); app.notify(); } }, "Add a new image");
    element.append(h("div", { class: "scroll" }, h("div", { class: "split" },
      this.left = h("div", { class: "unfilled" }, this.canvas, h("div", { class: "row" }, this.play, this.scrub), this.warning,
        h("div", { class: "actions" }, save("strip", "Save strip"), save("gif", "Save GIF"), save("webp", "Save WebP"))),
      h("div", {}, h("h2", {}, "Pictures"), this.help, this.chosen, h("div", { class: "actions" }, random, clear),
        h("label", { class: "row soft" }, linear, "Straight lines instead of arcs")))));
    this.frames = [];
    app.listen(() => this.changed());
  }

  random() {
    return { kind: "new", seed: 0, index: Math.floor(Math.random() * 1000) };
  }

  open() {
    this.changed();
  }

  close() {
    if (this.timer) this.toggle();
  }

  async changed() {
    const places = this.app.morph;
    const key = JSON.stringify(places);
    if (key === this.key) return;
    this.key = key;
    this.help.hidden = places.length > 1;
    if (!places.length) this.chosen.replaceChildren();
    else {
      const images = await api.pictures(places, "morph chosen").catch(this.app.fail);
      if (images) this.chosen.replaceChildren(...images.map((image, i) => tileOf(image, `Remove ${nameOf(places[i])}`, () => {
        places.splice(i, 1);
        this.app.notify();
      })));
    }
    await this.build();
  }

  places() {
    const places = this.app.morph;
    const count = Math.min(200, FRAMES * (places.length - 1) + 1);
    return Array.from({ length: count }, (_, i) => ({ kind: "between", places, at: i / (count - 1), linear: Boolean(this.linear) }));
  }

  async build() {
    const { app } = this;
    this.left.classList.toggle("unfilled", app.morph.length < 2);
    if (app.morph.length < 2) {
      this.frames = [];
      this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
      this.path = null;
      this.warning.textContent = "";
      if (this.timer) this.toggle();
      return;
    }
    try {
      const places = this.places();
      const images = await api.pictures(places, "morph");
      if (!images) return;
      this.frames = images;
      this.framePlaces = places;
      this.show();
      if (!app.info.images) return;
      app.path = await api.post("/api/path", { places, projection: app.state.projection ?? "pca" });
      const outside = app.path.outside.filter(Boolean).length;
      this.warning.textContent = outside ? `${Math.round((100 * outside) / images.length)} % of the path lies outside of the images: pictures there may look wrong.` : "";
    } catch (error) {
      app.fail(error);
    }
  }

  show() {
    if (!this.frames.length) return;
    draw(this.canvas, this.frames[Math.round(this.scrub.value * (this.frames.length - 1))]);
  }

  toggle() {
    const playing = Boolean(this.timer);
    this.play.setAttribute("aria-pressed", !playing);
    this.play.textContent = playing ? "Play" : "Pause";
    if (playing) {
      clearInterval(this.timer);
      this.timer = null;
      return;
    }
    this.timer = setInterval(() => {
      if (!this.frames.length) return;
      const step = 1 / (this.frames.length - 1);
      const next = Number(this.scrub.value) + step;
      this.scrub.value = next > 1 + step / 2 ? 0 : Math.min(1, next);
      this.show();
    }, MILLISECONDS);
  }

  async save(format) {
    if (!this.frames.length) return;
    const few = format === "strip" ? this.framePlaces.filter((_, i) => i % Math.ceil(this.frames.length / 11) === 0 || i === this.frames.length - 1) : this.framePlaces;
    try {
      const blob = await api.animation(few, format);
      download(blob, `morph.${format === "strip" ? "png" : format}`);
    } catch (error) {
      this.app.fail(error);
    }
  }
}
