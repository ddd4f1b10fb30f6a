// The losses and pictures of the run, which may still be in training.

import * as api from "./api.js";
import { h, number, select } from "./pictures.js";

const REFRESH = 5000;
const [WIDTH, HEIGHT, LEFT, BOTTOM] = [420, 240, 64, 34];

export class TrainingView {
  constructor(app, element) {
    this.app = app;
    this.charts = h("div", { class: "charts" });
    this.sides = [0, 1].map(() => h("div"));
    element.append(h("div", { class: "scroll" }, this.charts, h("div", { class: "compare" }, ...this.sides)));
    this.chosen = [null, null];
  }

  open() {
    this.refresh();
    this.timer = setInterval(() => this.refresh(), REFRESH);
  }

  close() {
    clearInterval(this.timer);
  }

  async refresh() {
    try {
      const { metrics, pictures } = await api.get("/api/training");
      const key = JSON.stringify([metrics, pictures]);
      if (key === this.key) return;
      this.key = key;
      this.charts.replaceChildren(...Object.entries(metrics).map(([name, columns]) => chart(name, columns)));
      this.sides.forEach((side, i) => this.showSide(side, i, pictures));
    } catch (error) {
      this.app.fail(error);
    }
  }

  showSide(side, i, pictures) {
    const folder = ["samples/", "reconstructions/"][i];
    const newest = pictures.filter((name) => name.startsWith(folder)).at(-1) ?? pictures.at(-1);
    if (!newest) return side.replaceChildren();
    const name = this.chosen[i] ?? newest;
    const choose = (value) => { this.chosen[i] = value === newest ? null : value; this.showSide(side, i, pictures); };
    side.replaceChildren(select(pictures.map((picture) => [picture, picture.replace(".png", "").replace("/", ": ").replaceAll("_", " ")]), name, choose, "Picture"),
      h("img", { src: `/api/picture/${name}`, alt: name }));
  }
}

function chart(name, columns) {
  const x = columns.epoch;
  const lines = [["train", columns.train_loss], ["validation", columns.val_loss]];
  const values = lines.flatMap(([, line]) => line).filter((value) => value != null);
  const low = Math.min(...values);
  // The first epochs may be far above all others
  const sorted = [...values].sort((a, b) => a - b);
  const high = Math.max(sorted[Math.floor(0.98 * (sorted.length - 1))], low + 1e-6);
  const across = (value) => LEFT + ((value - x[0]) / Math.max(1, x.at(-1) - x[0])) * (WIDTH - LEFT - 12);
  const up = (value) => HEIGHT - BOTTOM - ((Math.min(value, high) - low) / (high - low)) * (HEIGHT - BOTTOM - 28);
  const ns = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text != null) element.textContent = text;
    return element;
  };
  const svg = ns("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": `Loss of ${name}: ${number(columns.val_loss.at(-1))} in epoch ${x.at(-1)}` });
  svg.append(ns("path", { class: "axis", d: `M${LEFT} 20V${HEIGHT - BOTTOM}H${WIDTH - 8}` }));
  for (const value of [low, (low + high) / 2, high]) svg.append(ns("text", { x: LEFT - 6, y: up(value) + 4, "text-anchor": "end" }, number(value)));
  for (const value of new Set([x[0], x.at(-1)])) svg.append(ns("text", { x: across(value), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, value));
  svg.append(ns("text", { x: (WIDTH + LEFT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "epoch"));
  lines.forEach(([kind, line], i) => {
    const d = line.map((value, k) => (value == null ? "" : `${k ? "L" : "M"}${across(x[k])} ${up(value)}`)).join("");
    svg.append(ns("path", { class: kind, d }));
    svg.append(ns("path", { class: kind, d: `M${WIDTH - 190 + 95 * i} 10h22` }), ns("text", { x: WIDTH - 162 + 95 * i, y: 14 }, kind));
  });
  const unit = name === "flow matching" ? "squared error" : "nats per image";
  return h("figure", {}, h("h2", {}, `${name[0].toUpperCase()}${name.slice(1)}: loss, ${unit}`), svg);
}
