// Tracks a face in images and frames: crops, the network, and the region of the next frame.
// The algorithm is that of rednet_jax/landmarks/{crops,boxes}.py and rednet_jax/inference/tracker.py
// for one face within a shot, and gives the same points. There is no detector and no detection of
// shot cuts.
//
// An image is an ImageData. A region { box, roll } is the bounding box [x0, y0, x1, y1] of the face,
// rotated about its centre by roll radians, clockwise. A crop { a, b, x, c, d, y } maps its pixels
// to those of the image: (u, v) -> (a u + b v + x, c u + d v + y). Pixel centres are at integers.
"use strict";

const SURE_ABOVE = 0.3;
const HIDDEN_ABOVE = 0.1;
const HIDDEN_FRAMES = 15;
const RECROP_BEYOND = 0.12;
const TURN_BEYOND = 0.35;
const SMALLEST_FACE = 12;
const LARGEST_BLOCK = 64;

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const apply = ({ a, b, x, c, d, y }, [u, v]) => [a * u + b * v + x, c * u + d * v + y];

// The square crop of `size` pixels around a region.
function cropAround({ box: [x0, y0, x1, y1], roll }, margin, size) {
  const scale = Math.max(x1 - x0, y1 - y0) * (margin / size);
  const [cos, sin] = [scale * Math.cos(roll), scale * Math.sin(roll)];
  const half = (size - 1) / 2;
  const x = (x0 + x1) / 2 - (cos - sin) * half;
  const y = (y0 + y1) / 2 - (sin + cos) * half;
  return { a: cos, b: -sin, x, c: sin, d: cos, y };
}

// The map from pixels of a new crop to pixels of the previous crop, a flat 2 x 3 matrix.
function warpBetween(crop, { a, b, x, c, d, y }) {
  const determinant = a * d - b * c;
  const before = (u, v) => [(d * u - b * v) / determinant, (a * v - c * u) / determinant];
  const right = before(crop.a, crop.c);
  const down = before(crop.b, crop.d);
  const origin = before(crop.x - x, crop.y - y);
  return Float32Array.of(right[0], down[0], origin[0], right[1], down[1], origin[1]);
}

// The RGB pixels of a crop, [size, size, 3]: averaged over blocks if it shrinks, then bilinear, black
// outside the image. Blocks and rounding are those of Pillow.
function cutCrop(image, crop, size) {
  const { a, b, x, c, d, y } = crop;
  const scale = Math.sqrt(Math.abs(a * d - b * c));
  const block = Math.floor(clamp(scale + 0.5, 1, LARGEST_BLOCK));
  const reach = 2 * block + 2;
  const ends = [-0.5, size - 0.5];
  const corners = ends.flatMap((u) => ends.map((v) => apply(crop, [u, v])));
  const along = (axis, length) => {
    const coordinates = corners.map((corner) => corner[axis]);
    let low = Math.floor(Math.min(...coordinates)) - reach;
    let high = Math.ceil(Math.max(...coordinates)) + reach;
    low += block * Math.max(Math.floor((-reach - low) / block), 0);
    low = Math.min(low, length + reach);
    high = clamp(high, low + 1, length + reach + 1);
    return [low, high - low];
  };
  const [left, width] = along(0, image.width);
  const [top, height] = along(1, image.height);
  const region = averaged(image, left, top, width, height, block);
  const start = (shift, low, steps) => (shift - low) / block + 0.5 / block - (steps / block) * 0.5;
  const map = { a: a / block, b: b / block, c: c / block, d: d / block };
  const shifts = { x: start(x, left, a + b), y: start(y, top, c + d) };
  return bilinear(region, { ...map, ...shifts }, size);
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
          const index = 4 * (v * image.width + u);
          for (let c = 0; c < 3; c++) sum[c] += image.data[index + c];
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

// Samples a region at the pixel centres of a crop. The map's coordinates start at the region's edge.
function bilinear({ data, width, height }, map, size) {
  const out = new Uint8Array(size * size * 3);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const [x, y] = apply(map, [column + 0.5, row + 0.5]);
      if (x < 0 || x >= width || y < 0 || y >= height) continue;
      const above = Math.floor(y - 0.5);
      const upper = 3 * width * Math.max(above, 0);
      const lower = above + 1 < height ? 3 * width * (above + 1) : upper;
      const down = y - 0.5 - above;
      const before = Math.floor(x - 0.5);
      const leftColumn = 3 * Math.max(before, 0);
      const rightColumn = 3 * Math.min(before + 1, width - 1);
      const right = x - 0.5 - before;
      for (let i = 0; i < 3; i++) {
        const [p, q] = [data[upper + leftColumn + i], data[upper + rightColumn + i]];
        const [r, s] = [data[lower + leftColumn + i], data[lower + rightColumn + i]];
        const first = p + (q - p) * right;
        const second = r + (s - r) * right;
        out[3 * (row * size + column) + i] = first + (second - first) * down;
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

// The mean face of a scheme, with the points of its outline that are not landmarks. It computes the
// bounding box of the whole face and the roll from landmarks.
class Shape {
  constructor({ mean_shape, outline }) {
    this.mean = mean_shape;
    this.outline = outline;
    const sum = (axis) => mean_shape.reduce((total, point) => total + point[axis], 0);
    this.middle = [0, 1].map((axis) => sum(axis) / mean_shape.length);
  }

  // The least-squares similarity (u, v) -> (a u - b v + x, b u + a v + y) from the mean face to
  // points x, y, x, y, ... For a single landmark, the size is that of the box `before`, the roll 0.
  fitted(points, before) {
    const [p, q] = this.middle;
    const count = this.mean.length;
    let [x, y] = [0, 0];
    for (let i = 0; i < count; i++) [x, y] = [x + points[2 * i] / count, y + points[2 * i + 1] / count];
    let [along, across, square] = [0, 0, 0];
    this.mean.forEach((point, i) => {
      const [u, v] = [point[0] - p, point[1] - q];
      const [s, t] = [points[2 * i] - x, points[2 * i + 1] - y];
      along += u * s + v * t;
      across += u * t - v * s;
      square += u * u + v * v;
    });
    const side = () => Math.max(before[2] - before[0], before[3] - before[1]);
    const [a, b] = square > 0 ? [along / square, across / square] : [side(), 0];
    return { a, b, x: x - a * p + b * q, y: y - b * p - a * q };
  }

  roll(points, before) {
    const { a, b } = this.fitted(points, before);
    return Math.atan2(b, a);
  }

  // The region of the face with these points, previously in the box `before`. It keeps the roll unless
  // that of the points differs much.
  region(points, roll, before) {
    const faceRoll = this.roll(points, before);
    const apart = faceRoll - roll;
    if (Math.abs(Math.atan2(Math.sin(apart), Math.cos(apart))) > TURN_BEYOND) roll = faceRoll;
    return { box: this.box(points, roll, before), roll };
  }

  // The box of landmarks and fitted outline along axes rotated by roll, before the rotation about its
  // centre.
  box(points, roll, before) {
    const { a, b, x, y } = this.fitted(points, before);
    const whole = this.outline.map(([u, v]) => [a * u - b * v + x, b * u + a * v + y]);
    this.mean.forEach((_, i) => whole.push([points[2 * i], points[2 * i + 1]]));
    const [cos, sin] = [Math.cos(roll), Math.sin(roll)];
    const upright = boxOf(whole.flatMap(([u, v]) => [cos * u + sin * v, cos * v - sin * u]));
    const [u, v] = [(upright[0] + upright[2]) / 2, (upright[1] + upright[3]) / 2];
    const [w, h] = [(upright[2] - upright[0]) / 2, (upright[3] - upright[1]) / 2];
    const [middleX, middleY] = [cos * u - sin * v, sin * u + cos * v];
    return [middleX - w, middleY - h, middleX + w, middleY + h];
  }
}

// The two graphs of an export, as export.json describes them.
class Network {
  static async load(exported) {
    ort.env.wasm.wasmPaths = new URL("onnxruntime-web/", document.baseURI).href;
    // More threads need HTTP headers that servers of static files do not send.
    ort.env.wasm.numThreads = 1;
    const [still, stream] = await Promise.all(
      exported.graphs.map((file) => ort.InferenceSession.create(encodeURIComponent(file))),
    );
    return new Network(exported, still, stream);
  }

  constructor({ crop, state, shape }, still, stream) {
    this.shape = new Shape(shape);
    this.size = crop.size;
    this.margin = crop.margin;
    this.initial = Object.entries(state).map(([name, { dtype, shape, begin }]) => {
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

  // Landmarks and confidence of the next frame, and the state after it. `state` is null before the
  // first frame.
  async step(pixels, warp, state) {
    const { landmarks, confidence, ...after } = await this.graphs.stream.run({
      crops: this.cropsOf(pixels),
      warp: new ort.Tensor("float32", warp, [1, 2, 3]),
      ...(state ?? Object.fromEntries(this.initial)),
    });
    const next = this.initial.map(([name]) => [name, after[`next_${name}`]]);
    return {
      landmarks: landmarks.data,
      confidence: confidence.data,
      state: Object.fromEntries(next),
    };
  }
}

// Tracks a face with a crop around its points in the previous frame, and carries the network's state.
class Follower {
  constructor(network) {
    this.network = network;
    this.forget();
  }

  forget() {
    this.face = null;
  }

  // The face of an image in or near a box, or null.
  async inImage(image, box) {
    const region = { box, roll: 0 };
    const run = (pixels) => this.network.still(pixels);
    this.face = await this.twice(image, region, SURE_ABOVE, run);
    return this.face;
  }

  // The face in a stream's next frame, or null. `box` is the region while no face is tracked.
  async inFrame(image, box) {
    const before = this.face;
    const region = before
      ? this.network.shape.region(before.points, before.roll, before.box)
      : { box, roll: 0 };
    // A tracked face may be hidden for a while, with a low confidence.
    const hidden = before?.hidden ?? HIDDEN_FRAMES;
    const least = hidden < HIDDEN_FRAMES ? HIDDEN_ABOVE : SURE_ABOVE;
    this.face = await this.twice(image, region, least, (pixels, crop) => {
      const warp = warpBetween(crop, before?.crop ?? crop);
      return this.network.step(pixels, warp, before?.state ?? null);
    });
    if (this.face) this.face.hidden = this.face.confidence < SURE_ABOVE ? hidden + 1 : 0;
    return this.face;
  }

  // The face in a region, or null. If it is far from the region's centre, the network runs again on a
  // crop around its points; the first result is kept if the second is not a face. `least` is the least
  // mean confidence of a face.
  async twice(image, region, least, run) {
    const first = await this.look(image, region, least, run);
    if (!first) return null;
    const { box } = region;
    const moved = this.network.shape.box(first.points, region.roll, box);
    const [dx, dy] = [0, 1].map((i) => Math.abs(moved[i] + moved[i + 2] - box[i] - box[i + 2]) / 2);
    const side = Math.max(box[2] - box[0], box[3] - box[1]);
    if (Math.max(dx, dy) <= RECROP_BEYOND * side) return first;
    const second = this.network.shape.region(first.points, region.roll, box);
    return (await this.look(image, second, least, run)) ?? first;
  }

  async look(image, region, least, run) {
    const { size, margin, shape } = this.network;
    const crop = cropAround(region, margin, size);
    const { landmarks, confidence, state } = await run(cutCrop(image, crop, size), crop);
    const points = new Float32Array(landmarks.length);
    for (let i = 0; i < points.length; i += 2) {
      points.set(apply(crop, [landmarks[i], landmarks[i + 1]]), i);
    }
    const mean = confidence.reduce((sum, value) => sum + value, 0) / confidence.length;
    const [x0, y0, x1, y1] = shape.box(points, 0, region.box);
    const [x, y, side] = [(x0 + x1) / 2, (y0 + y1) / 2, Math.max(x1 - x0, y1 - y0)];
    const inside = 0 <= x && x < image.width && 0 <= y && y < image.height;
    // These comparisons are false for NaN.
    const isFace =
      mean >= least &&
      inside &&
      SMALLEST_FACE <= side &&
      side <= 4 * Math.max(image.width, image.height);
    return isFace
      ? { points, confidence: mean, box: [x0, y0, x1, y1], roll: region.roll, crop, state }
      : null;
  }
}
