// The panel at the side: a picture, what is known of it, and what can be done with it.

import * as api from "./api.js";
import { canvasOf, h, number, range, savePng, tileOf } from "./pictures.js";

const SIMILAR = 8;

export function nameOf(place) {
  if (place.kind === "image") return `Image ${place.row + 1}`;
  if (place.kind === "new") return `New image ${place.index + 1}, seed ${place.seed}`;
  if (place.kind === "map") return `Map at ${place.at.map((value) => value.toFixed(2)).join(", ")}`;
  if (place.kind === "upload") return "Your picture";
  if (place.kind === "between") return `${Math.round(100 * place.at)} % of a morph`;
  if (place.kind === "near") return `Near: ${nameOf(place.of)}`;
  return `${place.kind === "moved" ? "Moved" : "Painted"}: ${nameOf(place.of)}`;
}

export class Inspector {
  constructor(app, element) {
    this.app = app;
    this.element = element;
    this.body = h("div");
    this.selection = h("section");
    this.pins = h("section");
    element.append(this.body, this.selection, this.pins);
    this.body.append(h("p", { class: "soft" }, "Select a picture to see what is known of it, and to use it elsewhere. "
      + "Drop a picture of your own anywhere on the page."));
    app.listen(() => this.showPins());
  }

  async show(place, image) {
    const { app } = this;
    this.place = place;
    const found = image ?? (await api.pictures([place], "inspector"))?.[0];
    if (!found || this.place !== place) return;
    this.image = found;
    const pair = h("div", { class: "pair" });
    pair.append(h("figure", {}, canvasOf(found, nameOf(place)), h("figcaption", {}, ["image", "upload"].includes(place.kind) ? "Reconstruction" : "Decoded")));
    const details = h("div");
    this.body.replaceChildren(h("section", {}, h("h2", {}, nameOf(place)), pair, details), this.actions(place, found), this.similar(place));
    if (place.kind === "image") await this.showOriginal(place, pair, details);
    else if (place.kind !== "upload" && app.info.images) await this.showNearest(await api.post("/api/nearest", { place }), place, pair, details);
  }

  async showOriginal(place, pair, details) {
    const [[original], facts] = await Promise.all([api.originals([place.row]), api.get(`/api/image/${place.row}`)]);
    if (this.place !== place) return;
    pair.prepend(h("figure", {}, canvasOf(original, facts.file), h("figcaption", {}, "Image")));
    details.append(factsOf(facts));
  }

  async showNearest(nearest, place, pair, details) {
    const [image] = await api.originals([nearest.row]);
    if (this.place !== place) return;
    const open = () => this.app.inspect({ kind: "image", row: nearest.row });
    const caption = h("figcaption", {}, `Nearest training image: ${nearest.file}`);
    pair.append(h("figure", {}, tileOf(image, `Show ${nearest.file}`, open), caption));
    details.append(h("p", { class: "soft" }, `The nearest training image differs by ${number(nearest.distance)} of 255 levels (root mean square).`));
  }

  async showUpload(file, facts) {
    const { name } = file;
    const place = { kind: "upload", id: facts.id };
    this.app.mark(place);
    await this.show(place, null);
    if (this.place !== place) return;
    const picture = h("img", { class: "picture", alt: name, src: URL.createObjectURL(file) });
    this.body.querySelector(".pair").prepend(h("figure", {}, picture, h("figcaption", {}, "Your picture")));
    const count = facts.images.toLocaleString("en");
    const details = this.body.querySelector(".pair").nextSibling;
    await this.showNearest(facts.nearest, place, this.body.querySelector(".pair"), details);
    const list = { File: name };
    if (facts["log-likelihood"] != null) {
      list["Log-likelihood (ELBO), nats"] = number(facts["log-likelihood"]);
      list["Rank by likelihood"] = `${facts["rank by log-likelihood"].toLocaleString("en")} of ${count}, least likely first`;
    }
    if (facts.KL != null) list["KL, nats"] = number(facts.KL);
    list["Reconstruction error"] = number(facts["reconstruction error"]);
    if (facts["posterior width"] != null) {
      list["Width of the posterior"] = `${number(facts["posterior width"])} of that of all images`;
    }
    this.body.firstChild.append(factsOf(list));
  }

  actions(place, image) {
    const { app } = this;
    const output = h("pre", { hidden: true, tabindex: 0 });
    const recipe = async () => {
      try {
        const { text } = await api.post("/api/recipe", { place });
        output.textContent = text;
        output.hidden = false;
        await navigator.clipboard?.writeText(text).then(() => app.say("Copied how to make this picture."), () => {});
      } catch (error) {
        app.fail(error);
      }
    };
    const button = (text, onclick) => h("button", { type: "button", onclick }, text);
    return h("section", {}, h("div", { class: "actions" },
      button("Copy recipe", recipe),
      button("Save PNG", () => savePng(image, `${nameOf(place).replace(/[^\w.-]+/g, "-")}.png`)),
      button("Pin", () => this.pin(place)),
      button("Use in sliders", () => { app.startSliders(place); app.open("sliders"); }),
      button("Add to morph", () => { app.morph.push(place); app.notify(); app.say(`The morph has ${app.morph.length} pictures.`); }),
    ), output);
  }

  similar(place) {
    const distance = range({ min: 0.1, max: 1.5, step: 0.05, value: 0.4, "aria-label": "Distance" });
    const tiles = h("div", { class: "strip" });
    let seed = 0;
    const show = async () => {
      try {
        const of = place.kind === "near" ? place.of : place;
        const places = Array.from({ length: SIMILAR }, (_, index) => ({ kind: "near", of, distance: +distance.value, seed, index }));
        const images = await api.pictures(places, "similar");
        if (images) tiles.replaceChildren(...images.map((image, i) => tileOf(image, nameOf(places[i]), () => this.app.inspect(places[i], image))));
      } catch (error) {
        this.app.fail(error);
      }
    };
    distance.addEventListener("change", show);
    const more = h("button", { type: "button", onclick: () => { seed += 1; show(); } }, "Show");
    return h("section", {}, h("h2", {}, "More like this"),
      h("div", { class: "row" }, h("span", { class: "soft" }, "near"), distance, h("span", { class: "soft" }, "far"), more), tiles);
  }

  pin(place) {
    const { app } = this;
    if (!app.pins.some((pin) => JSON.stringify(pin) === JSON.stringify(place))) app.pins.push(place);
    app.notify();
  }

  async showPins() {
    const { app } = this;
    if (!app.pins.length) return this.pins.replaceChildren();
    const known = app.pins.filter((place) => place.kind !== "image" || place.row < app.info.images);
    try {
      const images = await api.pictures(known, "pins");
      if (!images) return;
      const tiles = images.map((image, i) => tileOf(image, nameOf(known[i]), () => app.inspect(known[i], image)));
      const clear = h("button", { type: "button", onclick: () => { app.pins.length = 0; app.notify(); } }, "Remove all");
      this.pins.replaceChildren(h("h2", {}, "Pinned"), h("div", { class: "strip" }, ...tiles), h("div", { class: "actions" }, clear));
    } catch {
      this.pins.replaceChildren(); // of images that are not encoded yet
    }
  }
}

function factsOf(facts) {
  const rows = Object.entries(facts).filter(([name]) => name !== "row");
  return h("dl", {}, ...rows.flatMap(([name, value]) => [
    h("dt", {}, name[0].toUpperCase() + name.slice(1)), h("dd", {}, typeof value === "number" ? number(value) : value ?? "–"),
  ]));
}
