// Points of a map, drawn by WebGL 2. No library: those that compile shaders' helpers from text need a content
// policy that allows it.

const VERTEX = `#version 300 es
in vec2 position;
in float color;
in float dimmed;
uniform vec2 center, scale;
uniform float size;
uniform highp sampler2D palette;
out vec4 tint;
void main() {
  gl_Position = vec4((position - center) * scale, 0.0, 1.0);
  tint = texelFetch(palette, ivec2(int(color), 0), 0);
  tint.a *= mix(1.0, 0.12, dimmed);
  gl_PointSize = size;
  if (tint.a == 0.0) gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 tint;
out vec4 color;
void main() {
  float distance = length(gl_PointCoord - 0.5);
  if (distance > 0.5) discard;
  color = vec4(tint.rgb * tint.a, tint.a);
}`;
// Milliseconds of a frame while the view moves: fewer or more points are drawn to keep to them; all when it rests
const FRAME = 30;
const LEAST = 20000; // points that are drawn in any case

export class Points {
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true });
    if (!gl) throw new Error("The map needs WebGL 2, which this browser does not have.");
    this.gl = gl;
    this.canvas = canvas;
    this.program = link(gl);
    this.buffers = Object.fromEntries(["position", "color", "dimmed"].map((n) => [n, gl.createBuffer()]));
    this.palette = gl.createTexture();
    this.count = 0;
    this.budget = 200000;
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  // In random order, so that the first ones are a fair sample.
  setPositions(xy) {
    this.count = xy.length / 2;
    this.order = shuffled(this.count);
    this.setAttribute("position", this.ordered(xy, 2), 2);
    this.setDimmed(new Float32Array(this.count));
  }

  // Indices into the palette, for each point.
  setColors(indices) {
    this.setAttribute("color", this.ordered(indices, 1), 1);
  }

  // 1 for points that are dimmed, 0 for others.
  setDimmed(values) {
    this.setAttribute("dimmed", this.ordered(values, 1), 1);
  }

  // RGBA bytes of up to 2,048 colours; an alpha of 0 hides points.
  setPalette(bytes) {
    const gl = this.gl;
    gl.bindTexture(gl.TEXTURE_2D, this.palette);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, bytes.length / 4, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  }

  draw(view, size, moving) {
    const { gl, canvas } = this;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!this.count) return;
    const uniform = (name) => gl.getUniformLocation(this.program, name);
    gl.useProgram(this.program);
    gl.uniform2f(uniform("center"), view.x, view.y);
    gl.uniform2f(uniform("scale"), (2 * view.scale) / canvas.clientWidth, (2 * view.scale) / canvas.clientHeight);
    gl.uniform1f(uniform("size"), size * devicePixelRatio);
    gl.bindTexture(gl.TEXTURE_2D, this.palette);
    gl.drawArrays(gl.POINTS, 0, moving ? Math.min(this.count, this.adapt()) : this.count);
    this.moved = moving;
  }

  // The number of points while the view moves, by how long the frame before has taken.
  adapt() {
    const now = performance.now();
    const took = now - this.before;
    this.before = now;
    if (this.moved && took < 500) this.budget = Math.round(this.budget * Math.max(0.5, Math.min(1.2, FRAME / took)));
    this.budget = Math.max(LEAST, Math.min(this.budget, Math.max(this.count, LEAST)));
    return this.budget;
  }

  ordered(values, width) {
    const out = new Float32Array(values.length);
    for (let i = 0; i < this.count; i++) {
      for (let k = 0; k < width; k++) out[width * i + k] = values[width * this.order[i] + k];
    }
    return out;
  }

  setAttribute(name, values, width) {
    const gl = this.gl;
    const place = gl.getAttribLocation(this.program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, width, gl.FLOAT, false, 0, 0);
  }
}

function link(gl) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  return program;
}

function shuffled(count) {
  const order = new Uint32Array(count).map((_, i) => i);
  let state = 1;
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((state / 4294967296) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

// Finds the point nearest to a place, by cells of equal size.
export class PointIndex {
  constructor(xy, low, edge, side = Math.max(1, Math.min(512, Math.round(Math.sqrt(xy.length / 8))))) {
    Object.assign(this, { xy, low, edge, side });
    const count = xy.length / 2;
    this.starts = new Uint32Array(side * side + 1);
    const cells = new Uint32Array(count);
    for (let i = 0; i < count; i++) {
      cells[i] = this.cell(xy[2 * i], 0) + side * this.cell(xy[2 * i + 1], 1);
      this.starts[cells[i] + 1]++;
    }
    for (let c = 0; c < side * side; c++) this.starts[c + 1] += this.starts[c];
    const next = this.starts.slice();
    this.points = new Uint32Array(count);
    for (let i = 0; i < count; i++) this.points[next[cells[i]]++] = i;
  }

  cell(value, axis) {
    const place = Math.floor(((value - this.low[axis]) / this.edge) * this.side);
    return Math.max(0, Math.min(this.side - 1, place));
  }

  *inside(left, bottom, right, top) {
    const [x0, x1] = [this.cell(left, 0), this.cell(right, 0)];
    const [y0, y1] = [this.cell(bottom, 1), this.cell(top, 1)];
    for (let y = y0; y <= y1; y++) {
      for (let i = this.starts[x0 + this.side * y]; i < this.starts[x1 + this.side * y + 1]; i++) {
        yield this.points[i];
      }
    }
  }

  nearest(x, y, radius, visible) {
    let best = -1;
    let least = radius * radius;
    for (const i of this.inside(x - radius, y - radius, x + radius, y + radius)) {
      const distance = (this.xy[2 * i] - x) ** 2 + (this.xy[2 * i + 1] - y) ** 2;
      if (distance < least && visible(i)) [best, least] = [i, distance];
    }
    return best;
  }
}
