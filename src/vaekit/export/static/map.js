// The map: the plane of two principal components of the latents, every place of which can be decoded.
import { bytes, latest, model, rows, show, withImages } from "./model.js";

const CATCH = 14; // pixels within which an image is what the pointer means
const MOVED = 4; // pixels after which a press is a drag
const MAX_ZOOM = 40;
const canvas = document.getElementById("map-canvas");
let places, axes, atlas, onSelect;
let [center, cursor, scale] = [[0, 0], [0, 0], 0];

/** Read the thumbnails, and hand pictures that are clicked to `select`. */
export async function loadMap(select) {
  atlas = await createImageBitmap(new Blob([await bytes("map.png")]));
  [places, axes, onSelect] = [model.map.places, rows("axes"), select];
  let drag = null;
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    drag = { x: event.clientX, y: event.clientY, far: false };
  };
  canvas.onpointermove = (event) => {
    if (drag && (drag.far || Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > MOVED)) {
      center = [center[0] - (event.clientX - drag.x) / scale, center[1] + (event.clientY - drag.y) / scale];
      drag = { x: event.clientX, y: event.clientY, far: true };
    }
    cursor = placeOf(event);
    drawMap();
  };
  canvas.onpointerup = (event) => {
    if (drag && !drag.far) {
      cursor = placeOf(event);
      drawMap();
      choose();
    }
    drag = null;
  };
  canvas.onwheel = (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), placeOf(event));
  };
  canvas.onkeydown = (event) => {
    const moves = { ArrowLeft: [-20, 0], ArrowRight: [20, 0], ArrowUp: [0, 20], ArrowDown: [0, -20] };
    if (moves[event.key]) {
      cursor = cursor.map((v, i) => v + moves[event.key][i] / scale);
      drawMap();
    } else if (event.key === "+" || event.key === "=") zoom(1.5, cursor);
    else if (event.key === "-") zoom(1 / 1.5, cursor);
    else if (event.key === "Enter") choose();
    else return;
    event.preventDefault();
  };
}

/** Zoom about a place, which does not move on the screen. */
export function zoom(factor, about = center) {
  const before = scale;
  scale = Math.min(MAX_ZOOM, Math.max(0.5, (scale * factor) / fitting())) * fitting();
  center = center.map((v, i) => about[i] + ((v - about[i]) * before) / scale);
  drawMap();
}

export function drawMap() {
  scale ||= fitting();
  const ratio = devicePixelRatio;
  [canvas.width, canvas.height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio];
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const [width, height] = [atlas.width / model.map.columns, atlas.height / Math.ceil(places.length / model.map.columns)];
  const size = Math.min(96, 28 * Math.sqrt(scale / fitting())) / Math.max(width, height);
  context.imageSmoothingEnabled = size * ratio < 1;
  places.forEach((place, i) => {
    const [x, y] = onScreen(place);
    const [left, top] = [(i % model.map.columns) * width, Math.floor(i / model.map.columns) * height];
    const [w, h] = [size * width, size * height];
    context.drawImage(atlas, left, top, width, height, x - w / 2, y - h / 2, w, h);
  });
  for (const [color, line] of [["white", 5], [getComputedStyle(canvas).color, 2.5]]) {
    context.beginPath();
    context.arc(...onScreen(cursor), 10, 0, 2 * Math.PI);
    Object.assign(context, { strokeStyle: color, lineWidth: line }).stroke();
  }
  showCursor();
}

/** The picture at the cursor: that of a thumbnail near it, or what the place in the plane decodes to. */
function atCursor() {
  const distances = places.map(([x, y]) => Math.hypot(x - cursor[0], y - cursor[1]));
  const nearest = distances.indexOf(Math.min(...distances));
  const label = model.map.labels[nearest];
  if (distances[nearest] * scale <= CATCH) return { z: rows("draws")[nearest], label };
  const [right, up] = axes;
  return { z: rows("mean")[0].map((v, i) => v + cursor[0] * right[i] + cursor[1] * up[i]), label };
}

const showCursor = latest(async () => {
  const [picture] = await withImages([atCursor()]);
  show(document.getElementById("map-image"), picture);
});

async function choose() {
  const [picture] = await withImages([atCursor()]);
  onSelect(picture);
}

/** Pixels per unit at which all images are in view. */
function fitting() {
  return Math.min(canvas.clientWidth, canvas.clientHeight) / (2.2 * model.map.extent);
}

function onScreen([x, y]) {
  const { clientWidth, clientHeight } = canvas;
  return [clientWidth / 2 + (x - center[0]) * scale, clientHeight / 2 - (y - center[1]) * scale];
}

function placeOf(event) {
  const box = canvas.getBoundingClientRect();
  const [right, down] = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  return [center[0] + right / scale, center[1] - down / scale];
}
