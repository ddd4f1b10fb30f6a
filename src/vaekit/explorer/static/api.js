// Requests to the server that this page comes from.

async function answer(path, options) {
  const response = await fetch(path, options);
  if (!response.ok) throw new Error((await response.text()) || `Error ${response.status}`);
  return response;
}

const asJson = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

export async function get(path) {
  return (await answer(path)).json();
}

export async function post(path, body = {}) {
  return (await answer(path, asJson(body))).json();
}

export async function floats(path) {
  const response = await answer(path);
  const header = (name) => JSON.parse(response.headers.get(name) ?? "null");
  const values = new Float32Array(await response.arrayBuffer());
  return { values, low: header("X-Low"), edge: header("X-Edge") };
}

async function imagesOf(response) {
  const [count, height, width] = JSON.parse(response.headers.get("X-Shape"));
  const bytes = new Uint8ClampedArray(await response.arrayBuffer());
  const size = 4 * height * width;
  const images = [];
  for (let i = 0; i < count; i++) {
    images.push(new ImageData(bytes.slice(i * size, (i + 1) * size), width, height));
  }
  return images;
}

export async function tile(projection, level, x, y) {
  const response = await answer(`/api/tile/${projection}/${level}/${x}/${y}`);
  const rows = JSON.parse(response.headers.get("X-Rows"));
  return { rows, images: await imagesOf(response) };
}

export async function originals(rows) {
  return imagesOf(await answer("/api/originals", asJson({ rows })));
}

let streams = 0;

// The pictures of places; null where a later request of the same stream has taken over.
export async function pictures(places, stream = `once ${streams++}`) {
  const response = await answer("/api/pictures", asJson({ stream, places }));
  return response.status === 204 ? null : imagesOf(response);
}

// Calls `show` with the picture of the latest place only: one request is under way at a time.
export function latest(stream, show, fail) {
  let waiting = null;
  let busy = false;
  return async function request(place) {
    waiting = place;
    if (busy) return;
    busy = true;
    while (waiting) {
      const next = waiting;
      waiting = null;
      try {
        const images = await pictures([next], stream);
        if (images) show(images[0], next);
      } catch (error) {
        fail(error);
      }
    }
    busy = false;
  };
}

export async function upload(file) {
  const path = `/api/upload?name=${encodeURIComponent(file.name)}`;
  return (await answer(path, { method: "POST", body: file })).json();
}

export async function animation(places, format) {
  return (await answer("/api/animation", asJson({ places, format }))).blob();
}

// A selection as bits in base64, eight to a byte, the lowest first.
export function mask(rows, count) {
  const bytes = new Uint8Array(Math.ceil(count / 8));
  for (const row of rows) bytes[row >> 3] |= 1 << (row & 7);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}
