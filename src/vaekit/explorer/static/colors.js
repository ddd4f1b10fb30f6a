// The colours of points by a figure or a class.

import { h, number } from "./pictures.js";

// Okabe & Ito (2008), which can be told apart with any colour vision; yellow is darker here, for white paper
const CATEGORIES = ["0072b2", "e69f00", "009e73", "d55e00", "56b4e9", "cc79a7", "b8a800", "7f7f7f"];
// Viridis at nine places (Smith & van der Walt, CC0)
const RAMP = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"];
const LEVELS = 256;
const MOST = 2047; // colours of a palette
const OPACITY = 205;
const MISSING = [128, 128, 128, 90];

const rgb = (hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));

function category(i) {
  if (i < CATEGORIES.length) return rgb(CATEGORIES[i]);
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = `hsl(${(i * 137.5) % 360} 60% ${40 + 12 * (i % 3)}%)`;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

function ramp(share) {
  const at = share * (RAMP.length - 1);
  const [a, b] = [Math.floor(at), Math.ceil(at)].map((i) => rgb(RAMP[i]));
  return a.map((value, k) => Math.round(value + (b[k] - value) * (at % 1)));
}

export class Coloring {
  // `changed` is called when classes are hidden or shown.
  constructor(column, values, changed) {
    Object.assign(this, { column, changed, hidden: new Set() });
    const classes = Math.min(column.categories.length, MOST);
    const [low, high] = column.range;
    const level = (value) => Math.floor(((value - low) / (high - low || 1)) * LEVELS);
    this.missing = classes || LEVELS;
    this.indices = Float32Array.from(values, (value) => {
      if (!Number.isFinite(value)) return this.missing;
      if (classes) return value < 0 || value >= classes ? this.missing : value;
      return Math.max(0, Math.min(LEVELS - 1, level(value)));
    });
    this.palette = Array.from({ length: this.missing }, (_, i) => (classes ? category(i) : ramp(i / (LEVELS - 1))));
  }

  // RGBA of every colour; those of hidden classes are transparent.
  bytes() {
    const colors = this.palette.map((color, i) => [...color, this.hidden.has(i) ? 0 : OPACITY]);
    return new Uint8Array([...colors, MISSING].flat());
  }

  color(row) {
    return `rgb(${(this.palette[this.indices[row]] ?? MISSING.slice(0, 3)).join(" ")})`;
  }

  isHidden(row) {
    return this.hidden.has(this.indices[row]);
  }

  legend() {
    const { categories, about, range: [low, high] } = this.column;
    if (!categories.length) {
      const colors = h("span", { class: "ramp" });
      colors.style.background = `linear-gradient(to right, ${RAMP.map((hex) => `#${hex}`).join()})`;
      return [number(low), colors, number(high), h("span", { class: "soft" }, about)];
    }
    return categories.slice(0, MOST).map((name, i) => {
      const swatch = h("span", { class: "swatch" });
      swatch.style.background = `rgb(${this.palette[i].join(" ")})`;
      const toggle = (event) => {
        if (!this.hidden.delete(i)) this.hidden.add(i);
        event.currentTarget.setAttribute("aria-pressed", !this.hidden.has(i));
        this.changed();
      };
      return h("button", { type: "button", "aria-pressed": true, title: `Hide or show ${name}`, onclick: toggle }, swatch, name || "no class");
    });
  }
}
