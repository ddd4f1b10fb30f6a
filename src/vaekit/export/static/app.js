// The page: wall, sliders, morph and map of a model that is decoded in the browser.
import { className, decode, draw, latest, load, model, rows, show, thumbnail, withImages } from "./model.js";
import { drawMap, loadMap, zoom } from "./map.js";

const TILES = 28;
const AT_ONCE = 4; // images that are drawn before the next ones are computed
const TILE = 96; // pixels of a tile, at least: images are magnified by a whole factor
const SECONDS_BETWEEN_STOPS = 2;
const $ = (id) => document.getElementById(id);
const tabs = [...document.querySelectorAll("[role=tab]")];

// --- Selection ---

let selection = [];

function select(picture) {
  const chosen = selection.includes(picture);
  selection = chosen ? selection.filter((other) => other !== picture) : [...selection, picture];
  drawSelection();
}

function drawSelection() {
  $("tray").hidden = selection.length === 0;
  $("selected").replaceChildren(
    ...selection.map((picture) => {
      const item = document.createElement("li");
      item.append(thumbnail(picture));
      return item;
    }),
  );
  for (const tile of $("tiles").children) tile.setAttribute("aria-pressed", selection.includes(tile.picture));
}

function save() {
  selection.forEach((picture, i) =>
    thumbnail(picture).toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `image-${i + 1}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    }),
  );
}

// --- Wall ---

const newImages = latest(async () => {
  const label = Number($("class").value || -1);
  const temperature = Number($("temperature").value);
  for (let first = 0; first < TILES; first += AT_ONCE) {
    const pictures = await withImages(await draw(AT_ONCE, label, temperature));
    pictures.forEach((picture, i) => {
      const old = $("tiles").children[first + i];
      old ? old.replaceWith(tile(picture, first + i)) : $("tiles").append(tile(picture, first + i));
    });
    await new Promise(requestAnimationFrame);
  }
});

function tile(picture, index) {
  const button = document.createElement("button");
  button.className = "tile";
  button.picture = picture;
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-label", `Select image ${index + 1} ${className(picture)}`.trim());
  button.append(thumbnail(picture));
  if (className(picture)) {
    const caption = document.createElement("span");
    caption.textContent = className(picture);
    button.append(caption);
  }
  button.onclick = () => select(picture);
  return button;
}

// --- Sliders: a picture, moved along directions in units of their standard deviations ---

let base;
let moved;

const drawSliders = latest(async () => {
  const inputs = [...$("directions").querySelectorAll("input")];
  const z = Float32Array.from(base.z);
  rows("directions").forEach((direction, k) => direction.forEach((v, i) => (z[i] += Number(inputs[k].value) * v)));
  [moved] = await withImages([{ z, label: base.label }]);
  show($("slider-image"), moved);
});

function startSliders(picture) {
  base = picture;
  for (const input of $("directions").querySelectorAll("input")) setSlider(input, 0);
  return drawSliders();
}

function setSlider(input, value) {
  input.value = value;
  input.parentElement.lastElementChild.textContent = Number(value).toFixed(1);
}

function makeSliders() {
  const line = (_, k) => {
    const label = document.createElement("label");
    label.className = "direction";
    const [number, value] = [document.createElement("span"), document.createElement("output")];
    const input = document.createElement("input");
    number.textContent = model.directions[k];
    Object.assign(input, { type: "range", min: -3, max: 3, step: 0.1, value: 0 });
    input.setAttribute("aria-label", `Direction ${model.directions[k]}, in standard deviations`);
    input.oninput = () => (setSlider(input, input.value), drawSliders());
    value.textContent = "0.0";
    label.append(number, input, value);
    return label;
  };
  $("directions").replaceChildren(...rows("directions").map(line));
}

// --- Morph: a path through two pictures or more ---

let stops = [];

/** From a to b along a great circle where there is one, since a straight line passes nearer to the origin. */
function between(a, b, t) {
  const length = (z) => Math.hypot(...z);
  const [la, lb] = [length(a.z), length(b.z)];
  const cosine = a.z.reduce((sum, v, i) => sum + v * b.z[i], 0) / (la * lb);
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  let [wa, wb] = [1 - t, t];
  if (la * lb > 0 && Math.sin(angle) > 1e-4) {
    const scale = (la * (1 - t) + lb * t) / Math.sin(angle);
    [wa, wb] = [(scale * Math.sin((1 - t) * angle)) / la, (scale * Math.sin(t * angle)) / lb];
  }
  return { z: a.z.map((v, i) => wa * v + wb * b.z[i]), label: (t < 0.5 ? a : b).label };
}

const drawMorph = latest(async () => {
  const place = Number($("place").value) * (stops.length - 1);
  const first = Math.min(Math.floor(place), stops.length - 2);
  const [picture] = await withImages([between(stops[first], stops[first + 1], place - first)]);
  show($("morph-image"), picture);
});

function startMorph(pictures) {
  stops = pictures;
  $("place").value = 0;
  $("stops").replaceChildren(...stops.map(thumbnail));
  $("morph-note").textContent = `The path passes through ${stops.length} images. Select others on the wall or the map.`;
  return drawMorph();
}

const randomPath = async () => startMorph(await withImages(await draw(3)));

function play(on) {
  $("play").setAttribute("aria-pressed", on);
  $("play").textContent = on ? "Pause" : "Play";
  if (!on) return;
  let time = performance.now();
  const step = async (now) => {
    if ($("play").getAttribute("aria-pressed") !== "true") return;
    const share = (now - time) / 1000 / SECONDS_BETWEEN_STOPS / (stops.length - 1);
    time = now;
    $("place").value = Number($("place").value) >= 1 ? 0 : Number($("place").value) + share;
    await drawMorph();
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

// --- The page ---

const starts = {
  wall: () => {},
  sliders: async () => base || startSliders((await withImages(await draw(1)))[0]),
  morph: async () => stops.length || randomPath(),
  map: drawMap,
};

function open(name) {
  for (const tab of tabs) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (name !== "morph") play(false);
  return starts[name]();
}

function connect() {
  tabs.forEach((tab, i) => {
    tab.onclick = () => open(tab.getAttribute("aria-controls"));
    tab.onkeydown = ({ key }) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
      if (step) tabs.at((i + step) % tabs.length).focus(), tabs.at((i + step) % tabs.length).click();
    };
  });
  $("more").onclick = $("class").onchange = newImages;
  $("temperature").oninput = () => {
    $("temperature-value").textContent = Number($("temperature").value).toFixed(2);
    newImages();
  };
  $("reset").onclick = () => startSliders(base);
  $("random").onclick = async () => startSliders((await withImages(await draw(1)))[0]);
  $("select-slider").onclick = () => select(moved);
  $("play").onclick = () => play($("play").getAttribute("aria-pressed") !== "true");
  $("new-path").onclick = randomPath;
  $("place").oninput = () => (play(false), drawMorph());
  $("zoom-in").onclick = () => zoom(1.5);
  $("zoom-out").onclick = () => zoom(1 / 1.5);
  $("to-sliders").onclick = () => (startSliders(selection.at(-1)), open("sliders"));
  $("to-morph").onclick = async () => {
    const pictures = selection.length > 1 ? selection : [...selection, ...(await withImages(await draw(1)))];
    await startMorph(pictures);
    open("morph");
  };
  $("save").onclick = save;
  $("clear").onclick = () => ((selection = []), drawSelection());
  addEventListener("resize", () => $("map").hidden || drawMap());
  matchMedia("(prefers-color-scheme: dark)").onchange = () => $("map").hidden || drawMap();
}

try {
  await load();
  const [channels, height, width] = model.shape;
  document.title = $("title").textContent = model.title;
  const colour = channels === 1 ? "gray" : channels === 3 ? "colour" : `${channels} bands`;
  $("facts").textContent = `${width}×${height} ${colour}, ${model.size} latents, decoded in this browser`;
  document.body.classList.toggle("pixelated", Math.max(height, width) <= 128);
  document.body.style.setProperty("--tile", `${width * Math.ceil(TILE / Math.max(height, width))}px`);
  $("class-field").hidden = model.classes.length === 0;
  $("class").add(new Option("all", -1));
  model.classes.forEach((name, i) => $("class").add(new Option(name, i)));
  $("map-note").textContent =
    `${model.map.places.length} new images on the plane of the first two principal components of their latents ` +
    `(${model.map.share} % of the variance). Between them, the picture is what the place in the plane decodes to.`;
  await loadMap(select);
  makeSliders();
  connect();
  document.querySelector("main").hidden = false;
  await newImages();
  $("status").hidden = true;
  globalThis.vaekit = { decode, draw, model };
} catch (error) {
  $("status").textContent = `The model could not be loaded: ${error.message}`;
  throw error;
}
