// New images, endlessly.

import * as api from "./api.js";
import { nameOf } from "./inspector.js";
import { h, range, select, tileOf } from "./pictures.js";

const AT_ONCE = 32;

export class WallView {
  constructor(app, element) {
    this.app = app;
    this.tiles = h("div", { class: "wall" });
    this.end = h("p", { class: "soft" }, "Generating …");
    this.scroller = h("div", { class: "scroll" }, this.tiles, this.end);
    element.append(this.controls(), this.scroller);
    new IntersectionObserver(() => this.fill(), { root: this.scroller, rootMargin: "400px" }).observe(this.end);
    this.generation = 0;
    this.count = 0;
  }

  open() {
    this.isOpen = true;
    this.fill();
  }

  close() {
    this.isOpen = false;
  }

  controls() {
    const { app } = this;
    const { info, state } = app;
    const set = (name) => (value) => { app.set({ [name]: value }); this.restart(); };
    const slider = (name, text, low, high, initial) => {
      const output = h("output", {}, state[name] ?? initial);
      const input = range({ min: low, max: high, step: 0.05, value: state[name] ?? initial,
        oninput: (event) => { output.textContent = event.target.value; }, onchange: (event) => set(name)(event.target.value) });
      return h("label", {}, text, input, output);
    };
    const seed = h("input", { type: "number", min: 0, step: 1, value: state.seed ?? 0, onchange: (event) => set("seed")(event.target.value) });
    const another = h("button", { type: "button", onclick: () => { seed.value = Math.floor(Math.random() * 1e6); set("seed")(seed.value); } }, "New seed");
    const parts = [h("label", {}, "Seed", seed), another];
    if (info.chooses_class) {
      const options = [["", "All classes"], ...info.classes.map((name) => [name, name])];
      parts.push(select(options, state.class ?? "", set("class"), "Class"));
    }
    parts.push(slider("temperature", "Temperature", 0, 1.5, 1));
    if (info.guidance) parts.push(slider("guidance", "Guidance", 0, 6, info.default_guidance));
    if (info.fitted) {
      parts.push(select([["", `Prior: ${info.prior}`], ["model", "Prior: the model's"]], state.prior ?? "", set("prior"), "Prior"));
    }
    return h("div", { class: "bar" }, ...parts);
  }

  place(index) {
    const { state, info } = this.app;
    const place = { kind: "new", seed: Math.max(0, Math.floor(Number(state.seed ?? 0)) || 0), index };
    if (state.class && info.chooses_class) place.label = state.class;
    if (state.temperature) place.temperature = Number(state.temperature);
    if (state.prior === "model") place.prior = "model";
    else if (state.guidance && info.guidance) place.guidance = Number(state.guidance);
    return place;
  }

  restart() {
    this.generation += 1;
    this.count = 0;
    this.tiles.replaceChildren();
    this.fill();
  }

  async fill() {
    const { app, generation } = this;
    if (this.busy === generation || !this.isOpen) return;
    this.busy = generation;
    const near = () => this.end.getBoundingClientRect().top < this.scroller.getBoundingClientRect().bottom + 400;
    try {
      while (this.isOpen && generation === this.generation && near()) {
        const places = Array.from({ length: AT_ONCE }, (_, i) => this.place(this.count + i));
        const images = await api.pictures(places, "wall");
        if (!images || generation !== this.generation) break;
        this.tiles.append(...images.map((image, i) => tileOf(image, nameOf(places[i]), () => app.inspect(places[i], image))));
        this.count += AT_ONCE;
      }
    } catch (error) {
      app.fail(error);
    }
    if (this.busy === generation) this.busy = null;
  }
}
