// Elements, and pictures on canvases.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-")) element.setAttribute(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export function draw(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

export function canvasOf(image, label) {
  const canvas = h("canvas", { role: "img", "aria-label": label, class: "picture" });
  draw(canvas, image);
  return canvas;
}

// A button that shows a picture.
export function tileOf(image, label, onclick) {
  return h("button", { class: "tile", type: "button", title: label, onclick }, canvasOf(image, label));
}

export function download(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function savePng(image, name) {
  const canvas = document.createElement("canvas");
  draw(canvas, image);
  canvas.toBlob((blob) => download(blob, name), "image/png");
}

export function number(value) {
  if (value == null) return "–";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 1 ? 2 : 3;
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export const range = (attributes) => h("input", { type: "range", ...attributes });

export function select(options, chosen, onchange, label) {
  const items = options.map(([value, text]) => h("option", { value, selected: value === chosen }, text));
  return h("select", { "aria-label": label, onchange: (event) => onchange(event.target.value) }, ...items);
}
