// Thumbnails of a map, tile by tile.

import * as api from "./api.js";
import { draw } from "./pictures.js";

export const THUMBNAIL = 34; // pixels of the longer edge
const FRAME = 2;
const TILE_PIXELS = 280; // a tile is about as wide
const DEEPEST = 12;
const MOST_TILES = 600; // in memory

export class Thumbnails {
  // `loaded` is called whenever a tile has arrived.
  constructor(map, loaded) {
    Object.assign(this, { map, loaded, projection: map.projection, tiles: new Map() });
  }

  draw(context, { scale }) {
    const { low, edge, area } = this.map;
    const level = Math.max(0, Math.min(DEEPEST, Math.round(Math.log2((scale * edge) / TILE_PIXELS))));
    const count = 2 ** level;
    const tile = (value, axis) => Math.max(0, Math.min(count - 1, Math.floor(((value - low[axis]) / edge) * count)));
    const [left, top] = this.map.toMap(0, 0);
    const [right, bottom] = this.map.toMap(area.clientWidth, area.clientHeight);
    this.taken = new Map();
    context.imageSmoothingEnabled = false;
    for (let y = tile(bottom, 1); y <= tile(top, 1); y++) {
      for (let x = tile(left, 0); x <= tile(right, 0); x++) {
        this.tile(level, x, y)?.forEach(([row, canvas]) => this.drawOne(context, row, canvas));
      }
    }
  }

  // Unless it would cover one that is drawn already.
  drawOne(context, row, canvas) {
    const { xy, coloring, dimmed } = this.map;
    if (coloring.isHidden(row)) return;
    const [x, y] = this.map.toScreen(xy[2 * row], xy[2 * row + 1]);
    const longer = Math.max(canvas.width, canvas.height);
    const [width, height] = [canvas.width, canvas.height].map((side) => (side / longer) * THUMBNAIL);
    const [column, line] = [Math.floor(x / THUMBNAIL), Math.floor(y / THUMBNAIL)];
    for (let a = column - 1; a <= column + 1; a++) {
      for (let b = line - 1; b <= line + 1; b++) {
        const other = this.taken.get(`${a} ${b}`);
        if (other && Math.abs(other[0] - x) < width && Math.abs(other[1] - y) < height) return;
      }
    }
    this.taken.set(`${column} ${line}`, [x, y]);
    context.globalAlpha = dimmed?.[row] ? 0.25 : 1;
    context.fillStyle = coloring.color(row);
    context.fillRect(x - width / 2 - FRAME, y - height / 2 - FRAME, width + 2 * FRAME, height + 2 * FRAME);
    context.drawImage(canvas, x - width / 2, y - height / 2, width, height);
    context.globalAlpha = 1;
  }

  tile(level, x, y) {
    const key = `${level} ${x} ${y}`;
    if (!this.tiles.has(key)) {
      this.tiles.set(key, null);
      if (this.tiles.size > MOST_TILES) this.tiles.delete(this.tiles.keys().next().value);
      api.tile(this.projection, level, x, y).then(({ rows, images }) => {
        this.tiles.set(key, images.map((image, i) => {
          const canvas = document.createElement("canvas");
          draw(canvas, image);
          return [rows[i], canvas];
        }));
        this.loaded();
      }, () => this.tiles.delete(key));
    }
    return this.tiles.get(key);
  }
}
