// A face in pictures and frames: the crop rule, the network, and what decides where it looks next.
// The same as rednet_jax/landmarks/crops.py and rednet_jax/inference/tracker.py, so that points agree,
// for one face within a shot: no detector looks for it here, and no cut between shots is found.
//
// An image is an ImageData, a box [x0, y0, x1, y1] of the landmarks. A crop {scale, x, y} maps its
// pixels to those of the image: p -> scale * p + (x, y); in both, pixel centres lie at integers.
"use strict";

const LOST_BELOW = 0.3;
const RECROP_BEYOND = 0.12;
const SMALLEST_FACE = 12;
const LARGEST_BLOCK = 64;

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// The square around a box, of so many pixels.
function cropAround([x0, y0, x1, y1], margin, size) {
  const scale = Math.max(x1 - x0, y1 - y0) * (margin / size);
  const half = (scale * (size - 1)) / 2;
  return { scale, x: (x0 + x1) / 2 - half, y: (y0 + y1) / 2 - half };
}

// Pixels of a new crop -> pixels of the crop before, as a row of 2 x 3 numbers.
function warpBetween(crop, before) {
  const scale = crop.scale / before.scale;
  const x = (crop.x - before.x) / before.scale;
  const y = (crop.y - before.y) / before.scale;
  return Float32Array.of(scale, 0, x, 0, scale, y);
}

// RGB of a crop, [size, size, 3]: averaged over blocks where it shrinks, then bilinear, black
// outside. Blocks and rounding are Pillow's.
function cutCrop(image, { scale, x, y }, size) {
  const block = Math.floor(clamp(scale + 0.5, 1, LARGEST_BLOCK));
  const reach = 2 * block + 2;
  const along = (shift, length) => {
    let low = Math.floor(shift - scale / 2) - reach;
    let high = Math.ceil(shift + scale * (size - 0.5)) + reach;
    low += block * Math.max(Math.floor((-reach - low) / block), 0);
    low = Math.min(low, length + reach);
    high = clamp(high, low + 1, length + reach + 1);
    return [low, high - low];
  };
  const [left, width] = along(x, image.width);
  const [top, height] = along(y, image.height);
  const region = averaged(image, left, top, width, height, block);
  const step = scale / block;
  const start = (shift, low) => (shift - low) / block + 0.5 / block - step * 0.5;
  return bilinear(region, step, start(x, left), start(y, top), size);
}

function averaged(image, left, top, width, height, block) {
  const columns = Math.ceil(width / block);
  const rows = Math.ceil(height / block);
  const data = new Uint8Array(columns * rows * 3);
  for (let row = 0; row < rows; row++) {
    const y0 = top + row * block;
    const y1 = Math.min(y0 + block, top + height);
    for (let column = 0; column < columns; column++) {
      const x0 = left + column * block;
      const x1 = Math.min(x0 + block, left + width);
      const sum = [0, 0, 0];
      for (let v = Math.max(y0, 0); v < Math.min(y1, image.height); v++) {
        for (let u = Math.max(x0, 0); u < Math.min(x1, image.width); u++) {
          const place = 4 * (v * image.width + u);
          for (let c = 0; c < 3; c++) sum[c] += image.data[place + c];
        }
      }
      const count = (x1 - x0) * (y1 - y0);
      const factor = Math.floor(2 ** 24 / count);
      for (let c = 0; c < 3; c++) {
        const rounded = (sum[c] + Math.floor(count / 2)) * factor;
        data[3 * (row * columns + column) + c] = Math.floor(rounded / 2 ** 24);
      }
    }
  }
  return { data, width: columns, height: rows };
}

function bilinear({ data, width, height }, step, left, top, size) {
  const out = new Uint8Array(size * size * 3);
  for (let row = 0; row < size; row++) {
    const y = step * (row + 0.5) + top;
    if (y < 0 || y >= height) continue;
    const above = Math.floor(y - 0.5);
    const upper = 3 * width * Math.max(above, 0);
    const lower = above + 1 < height ? 3 * width * (above + 1) : upper;
    const down = y - 0.5 - above;
    for (let column = 0; column < size; column++) {
      const x = step * (column + 0.5) + left;
      if (x < 0 || x >= width) continue;
      const before = Math.floor(x - 0.5);
      const one = 3 * Math.max(before, 0);
      const other = 3 * Math.min(before + 1, width - 1);
      const right = x - 0.5 - before;
      for (let c = 0; c < 3; c++) {
        const [a, b] = [data[upper + one + c], data[upper + other + c]];
        const [d, e] = [data[lower + one + c], data[lower + other + c]];
        const first = a + (b - a) * right;
        const second = d + (e - d) * right;
        out[3 * (row * size + column) + c] = first + (second - first) * down;
      }
    }
  }
  return out;
}

function boxOf(points) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < points.length; i += 2) {
    box[0] = Math.min(box[0], points[i]);
    box[1] = Math.min(box[1], points[i + 1]);
    box[2] = Math.max(box[2], points[i]);
    box[3] = Math.max(box[3], points[i + 1]);
  }
  return box;
}

// The two graphs of an export, as export.json describes them.
class Network {
  static async load(exported) {
    ort.env.wasm.wasmPaths = new URL("onnxruntime-web/", document.baseURI).href;
    // More would need headers that a plain server does not send.
    ort.env.wasm.numThreads = 1;
    const [still, stream] = await Promise.all(
      exported.graphs.map((file) => ort.InferenceSession.create(encodeURIComponent(file))),
    );
    return new Network(exported, still, stream);
  }

  constructor({ crop, state }, still, stream) {
    this.size = crop.size;
    this.margin = crop.margin;
    this.blank = Object.entries(state).map(([name, { dtype, shape, begin }]) => {
      const array = dtype === "int64" ? BigInt64Array : Float32Array;
      const count = shape.reduce((product, length) => product * length, 1);
      const numbers = Array.isArray(begin) ? begin.flat() : Array(count).fill(begin);
      const data = array.from(numbers, dtype === "int64" ? BigInt : Number);
      return [name, new ort.Tensor(dtype, data, [1, ...shape])];
    });
    this.graphs = { still, stream };
  }

  cropsOf(pixels) {
    return new ort.Tensor("uint8", pixels, [1, this.size, this.size, 3]);
  }

  async still(pixels) {
    const { landmarks, confidence } = await this.graphs.still.run({ crops: this.cropsOf(pixels) });
    return { landmarks: landmarks.data, confidence: confidence.data };
  }

  // The answer to the next frame, and the state after it; `state` is null before a first frame.
  async step(pixels, warp, state) {
    const { landmarks, confidence, ...after } = await this.graphs.stream.run({
      crops: this.cropsOf(pixels),
      warp: new ort.Tensor("float32", warp, [1, 2, 3]),
      ...(state ?? Object.fromEntries(this.blank)),
    });
    const next = this.blank.map(([name]) => [name, after[`next_${name}`]]);
    return {
      landmarks: landmarks.data,
      confidence: confidence.data,
      state: Object.fromEntries(next),
    };
  }
}

// One face, followed: a crop around its points of the frame before, the network's state with it.
class Follower {
  constructor(network) {
    this.network = network;
    this.forget();
  }

  forget() {
    this.face = null;
    this.crop = null;
    this.state = null;
  }

  // The face of a picture by itself, in or near a box; null where there is none.
  async inPicture(image, box) {
    this.forget();
    this.face = await this.twice(image, box, (pixels) => this.network.still(pixels));
    return this.face;
  }

  // The face in a stream's next frame; `box` is where to look while none is followed.
  async inFrame(image, box) {
    if (!this.face) this.forget();
    const around = this.face ? boxOf(this.face.points) : box;
    this.face = await this.twice(image, around, async (pixels, crop) => {
      const warp = warpBetween(crop, this.crop ?? crop);
      const { state, ...answer } = await this.network.step(pixels, warp, this.state);
      this.state = state;
      this.crop = crop;
      return answer;
    });
    return this.face;
  }

  // What `ask` says of a crop; of one around what it found, where that lies far from the middle.
  async twice(image, box, ask) {
    const first = await this.look(image, box, ask);
    if (!first) return null;
    const found = boxOf(first.points);
    const [dx, dy] = [0, 1].map((i) => Math.abs(found[i] + found[i + 2] - box[i] - box[i + 2]) / 2);
    const side = Math.max(box[2] - box[0], box[3] - box[1]);
    if (Math.max(dx, dy) <= RECROP_BEYOND * side) return first;
    return this.look(image, found, ask);
  }

  async look(image, box, ask) {
    const { size, margin } = this.network;
    const crop = cropAround(box, margin, size);
    const { landmarks, confidence } = await ask(cutCrop(image, crop, size), crop);
    const points = landmarks.map((place, i) => crop.scale * place + (i % 2 ? crop.y : crop.x));
    const sure = confidence.reduce((sum, one) => sum + one, 0) / confidence.length;
    const [x0, y0, x1, y1] = boxOf(points);
    const [x, y, side] = [(x0 + x1) / 2, (y0 + y1) / 2, Math.max(x1 - x0, y1 - y0)];
    const inside = 0 <= x && x < image.width && 0 <= y && y < image.height;
    // Written so that NaN is no face.
    const isFace =
      sure >= LOST_BELOW &&
      inside &&
      SMALLEST_FACE <= side &&
      side <= 4 * Math.max(image.width, image.height);
    return isFace ? { points, sure } : null;
  }
}
