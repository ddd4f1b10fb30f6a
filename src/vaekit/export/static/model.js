// The model: drawing latents and decoding them, by onnxruntime's WebAssembly build. A picture is
// { z, label, image }: latents, the number of its class, pixels.
import * as ort from "./runtime/ort.wasm.bundle.min.mjs";

/** What load() gives: model.json, its latents, and the two sessions. */
export let model;

export async function bytes(path) {
  const answer = await fetch(new URL(path, import.meta.url));
  if (!answer.ok) throw new Error(`${path} could not be loaded (${answer.status}).`);
  return answer.arrayBuffer();
}

export async function load() {
  // More threads need memory that pages share only if the host isolates them
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  ort.env.wasm.wasmPaths = { wasm: new URL("runtime/ort-wasm-simd-threaded.wasm", import.meta.url).href };
  const session = async (path) => ort.InferenceSession.create(new Uint8Array(await bytes(path)));
  const files = [bytes("model.json"), bytes("latents.bin"), session("decoder.onnx"), session("prior.onnx")];
  const [facts, latents, decoder, prior] = await Promise.all(files);
  model = { ...JSON.parse(new TextDecoder().decode(facts)), latents: new Float32Array(latents), decoder, prior };
}

/** Rows of latents.bin: those of `name` in model.json. */
export function rows(name) {
  const { first, count } = model.rows[name];
  const row = (i) => model.latents.subarray((first + i) * model.size, (first + i + 1) * model.size);
  return Array.from({ length: count }, (_, i) => row(i));
}

function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

function floats(values, ...shape) {
  return new ort.Tensor("float32", values, shape);
}

/** The inputs of a session among labels, conditions and `others`. */
function feeds(session, labels, others) {
  const n = labels.length;
  const all = {
    labels: () => new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [n]),
    conditions: () => floats(Float32Array.from(labels.flatMap(() => model.condition)), n, model.condition.length),
    choice: () => floats(Float32Array.from(labels, Math.random), n),
    ...others,
  };
  return Object.fromEntries(session.inputNames.map((name) => [name, all[name]()]));
}

let last = Promise.resolve();
/** Run a session after all earlier calls have ended. */
function run(session, inputs, output) {
  last = last.catch(() => {}).then(async () => (await session.run(inputs, [output]))[output].data);
  return last;
}

/** The pixels [n, height, width, channels] of latents [n, size] with labels [n]. */
export async function decode(z, labels = Array(z.length / model.size).fill(0)) {
  const latents = () => floats(z, labels.length, ...model.latentShape);
  return run(model.decoder, feeds(model.decoder, labels, { latents }), "images");
}

export async function withImages(pictures) {
  const z = new Float32Array(pictures.length * model.size);
  pictures.forEach((picture, i) => z.set(picture.z, i * model.size));
  const pixels = await decode(z, pictures.map((picture) => picture.label));
  const size = pixels.length / pictures.length;
  return pictures.map((picture, i) => ({ ...picture, image: toImage(pixels.subarray(i * size, (i + 1) * size)) }));
}

function toImage(pixels) {
  const [channels, height, width] = model.shape;
  const image = new ImageData(width, height);
  const channel = channels < 3 ? [0, 0, 0] : [0, 1, 2]; // of other bands the first three, as in pictures of vaekit
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[i * channels + channel[c]];
    image.data[4 * i + 3] = 255;
  }
  return image;
}

/** Latents drawn from the prior; without a class of all classes by their shares. */
export async function draw(n, label = -1, temperature = 1) {
  const labels = Array.from({ length: n }, () => (label < 0 ? anyClass() : label));
  const noise = () => floats(Float32Array.from({ length: n * model.size }, () => temperature * normal()), n, ...model.latentShape);
  const z = await run(model.prior, feeds(model.prior, labels, { noise }), "latents");
  return labels.map((label, i) => ({ z: z.slice(i * model.size, (i + 1) * model.size), label }));
}

function anyClass() {
  let left = Math.random();
  return Math.max(0, model.shares.findIndex((share) => (left -= share) < 0));
}

export function show(canvas, picture) {
  canvas.width = picture.image.width;
  canvas.height = picture.image.height;
  canvas.getContext("2d").putImageData(picture.image, 0, 0);
  return canvas;
}

export function thumbnail(picture) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", className(picture) || "Image");
  return show(canvas, picture);
}

export function className(picture) {
  return model.classes[picture.label] ?? "";
}

/** Call an asynchronous function for the latest arguments only, one call at a time. */
export function latest(call) {
  let busy = false;
  let waiting = null;
  return async (...given) => {
    waiting = given;
    if (busy) return;
    busy = true;
    try {
      while (waiting) {
        const next = waiting;
        waiting = null;
        await call(...next);
      }
    } finally {
      busy = false;
    }
  };
}
