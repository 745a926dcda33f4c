// The page: opens images, videos and the camera, lets the user choose a box, and draws the results.
"use strict";

const LONGEST_SIDE = 1280;
// Landmarks are drawn at this resolution, so that lines are fine on small images, too.
const DRAWN_SIDE = 1600;
const SMALLEST_BOX = 24;
const TIMED = 30;

const [image, drawing, file, camera, play, message, speed, empty] = [
  "image", "drawing", "file", "camera", "play", "message", "speed", "empty",
].map((id) => document.getElementById(id));
const pixels = image.getContext("2d", { willReadFrequently: true });

let parts = [];
let follower = null;
// The shown image or video: { element, width, height, moving }.
let source = null;
// The box that is searched for a face; while a face is tracked, its last box.
let box = null;
// The box that the user is choosing: { from: start of the drag, box }.
let choice = null;
// Pixels of the drawing per pixel of the image.
let zoom = 1;
let times = [];
let busy = Promise.resolve();

async function start() {
  if (location.protocol === "file:") {
    throw Error(
      "Browsers cannot load the network from a local file. In this folder, run " +
      "`python -m http.server` and open http://localhost:8000.");
  }
  const response = await fetch("export.json");
  if (!response.ok) throw Error(`export.json: ${response.statusText}`);
  const exported = (await response.json()).page;
  parts = exported.parts;
  follower = new Follower(await Network.load(exported));
  file.disabled = camera.disabled = false;
  say("Ready.");
}

function say(text) {
  // Screen readers repeat every change of the text, even if it stays the same.
  if (message.textContent !== text) message.textContent = text;
}

function failed(error) {
  say(error.message);
}

// Shows an image, a video or the camera, and runs the network on its first frame.
async function open(element, width, height, moving) {
  close();
  const shrunk = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  const side = shrunk * Math.min(width, height) * 0.5;
  source = { element, moving, width: Math.round(width * shrunk), height: Math.round(height * shrunk) };
  lookNextIn(boxAt(source.width / 2, source.height / 2, side));
  times = [];
  zoom = Math.max(1, Math.round(DRAWN_SIDE / Math.max(source.width, source.height)));
  for (const [canvas, factor] of [[image, 1], [drawing, zoom]]) {
    canvas.width = source.width * factor;
    canvas.height = source.height * factor;
    canvas.style.setProperty("--ratio", source.width / source.height);
    canvas.hidden = false;
  }
  empty.hidden = true;
  play.disabled = !moving;
  if (moving) watch(source).catch(failed);
  else await lookAgain();
}

function close() {
  if (!source) return;
  const { element } = source;
  source = null;
  releaseSource(element);
}

// Releases the camera or the file.
function releaseSource(element) {
  if (element.srcObject) for (const track of element.srcObject.getTracks()) track.stop();
  if (element.src) URL.revokeObjectURL(element.src);
}

async function openFile(chosen) {
  if (!chosen.type.startsWith("video/")) {
    const image = new Image();
    image.src = URL.createObjectURL(chosen);
    await image.decode().catch(() => {
      releaseSource(image);
      throw Error(`${chosen.name} is not an image that this browser can read.`);
    });
    return open(image, image.naturalWidth, image.naturalHeight, false);
  }
  const video = newVideo();
  video.src = URL.createObjectURL(chosen);
  video.loop = true;
  return openVideo(video, `${chosen.name} is not a video that this browser can play.`);
}

async function openCamera() {
  if (!navigator.mediaDevices) throw Error("Browsers allow the camera only on https and localhost.");
  const video = newVideo();
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } })
    .catch((error) => { throw Error(`The camera cannot be used (${error.message}).`); });
  return openVideo(video, "The camera gives no image.");
}

function newVideo() {
  const video = document.createElement("video");
  if (!video.requestVideoFrameCallback) {
    throw Error(
      "This browser supports images, but not videos and the camera: it lacks " +
      "requestVideoFrameCallback.");
  }
  video.muted = video.playsInline = true;
  return video;
}

async function openVideo(video, failure) {
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => {
      releaseSource(video);
      reject(Error(failure));
    };
  });
  await open(video, video.videoWidth, video.videoHeight, true);
  video.onplay = video.onpause = () => { play.textContent = video.paused ? "Play" : "Pause"; };
  await video.play();
}

// Runs the network on the frames of a video; frames that arrive while it runs are skipped.
async function watch(shown) {
  let last = 0;
  while (source === shown) {
    const { mediaTime } = await new Promise((resolve) => {
      shown.element.requestVideoFrameCallback((_, frame) => resolve(frame));
    });
    if (source !== shown) return;
    // The video restarted or was rewound, so that the last frame is not the previous one.
    if (mediaTime < last) busy = busy.then(() => follower.forget());
    last = mediaTime;
    await lookAgain();
  }
}

// Runs `look` after the current one has finished.
function lookAgain() {
  busy = busy.then(look).catch(failed);
  return busy;
}

// Drops the tracked face and searches this box next, after the current `look`, which sets the face
// and the box when it ends.
function lookNextIn(chosen) {
  busy = busy.then(() => {
    follower.forget();
    box = chosen;
  });
}

async function look() {
  const shown = source;
  const { element, width, height, moving } = shown;
  pixels.drawImage(element, 0, 0, width, height);
  const image = pixels.getImageData(0, 0, width, height);
  const begin = performance.now();
  const face = moving ? await follower.inFrame(image, box) : await follower.inImage(image, box);
  if (source !== shown) return;
  times = [...times, performance.now() - begin].slice(-TIMED);
  if (face) box = face.box;
  draw(face);
  say(face
    ? `One face, confidence ${face.confidence.toFixed(2)}.`
    : "No face in the dashed box: click on a face, or drag a box around it.");
  const median = [...times].sort((a, b) => a - b)[times.length >> 1];
  speed.textContent = `${median.toFixed(0)} ms per ${moving ? "frame" : "image"}`;
}

function draw(face) {
  const context = drawing.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, drawing.width, drawing.height);
  context.setTransform(zoom, 0, 0, zoom, zoom / 2, zoom / 2);
  const around = choice?.box ?? (face ? null : box);
  if (around) {
    const [x0, y0, x1, y1] = around;
    // Alternating light and dark dashes are visible on any background.
    const dash = Math.max(drawing.width, drawing.height) / 100 / zoom;
    for (const [colour, offset] of [["#fff", 0], ["#000", dash]]) {
      context.setLineDash([dash, dash]);
      context.lineDashOffset = offset;
      context.lineWidth = dash / 4;
      context.strokeStyle = colour;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    context.setLineDash([]);
  }
  if (face) drawPoints(context, face.points);
}

// Draws landmarks like rednet_jax/landmarks/drawing.py.
function drawPoints(context, points) {
  const [x0, y0, x1, y1] = boxOf(points);
  const side = Math.max(x1 - x0, y1 - y0);
  const [line, dot] = [Math.max(1 / zoom, side / 160), Math.max(1.3 / zoom, side / 90)];
  const point = (i) => [points[2 * i], points[2 * i + 1]];
  for (const rim of [2, 0]) {
    for (const { members, closed, colour } of parts) {
      context.beginPath();
      for (const i of members) context.lineTo(...point(i));
      if (closed) context.closePath();
      context.lineWidth = line + rim / zoom;
      context.strokeStyle = rim ? "#00000096" : colour;
      context.stroke();
    }
  }
  for (const { members, colour } of parts) {
    for (const i of members) {
      for (const [radius, fill] of [[dot, "#000"], [0.72 * dot, colour]]) {
        context.beginPath();
        context.arc(...point(i), radius, 0, 2 * Math.PI);
        context.fillStyle = fill;
        context.fill();
      }
    }
  }
}

function boxAt(x, y, side) {
  return [x - side / 2, y - side / 2, x + side / 2, y + side / 2];
}

// Searches a new box next; until then it is shown as the choice.
function take(chosen) {
  const taken = { box: chosen };
  choice = taken;
  lookNextIn(chosen);
  busy = busy.then(() => { if (choice === taken) choice = null; });
  if (!source.moving || source.element.paused) lookAgain();
}

// The position of a pointer in pixels of the image.
function positionOf(event) {
  const shown = drawing.getBoundingClientRect();
  const scale = image.width / shown.width;
  return [(event.clientX - shown.left) * scale - 0.5, (event.clientY - shown.top) * scale - 0.5];
}

drawing.onpointerdown = (event) => {
  drawing.setPointerCapture(event.pointerId);
  choice = { from: positionOf(event), box: null };
};
drawing.onpointermove = (event) => {
  if (!choice?.from) return;
  const [[x, y], [u, v]] = [choice.from, positionOf(event)];
  const smallest = Math.min(Math.abs(u - x), Math.abs(v - y));
  choice.box = smallest < SMALLEST_BOX ? null
    : [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)];
  draw(follower.face);
};
drawing.onpointerup = () => {
  if (!choice?.from) return;
  take(choice.box ?? boxAt(...choice.from, Math.max(box[2] - box[0], box[3] - box[1])));
};
drawing.onpointercancel = drawing.onblur = () => {
  choice = null;
  draw(follower.face);
};
drawing.onkeydown = (event) => {
  const before = choice?.box ?? box;
  const step = (before[2] - before[0]) / 10;
  const changes = {
    ArrowLeft: [-step, 0, -step, 0],
    ArrowRight: [step, 0, step, 0],
    ArrowUp: [0, -step, 0, -step],
    ArrowDown: [0, step, 0, step],
    "+": [-step / 2, -step / 2, step / 2, step / 2],
    "-": [step / 2, step / 2, -step / 2, -step / 2],
    Enter: [0, 0, 0, 0],
  };
  const change = changes[event.key];
  if (!change) return;
  event.preventDefault();
  choice = { box: before.map((edge, i) => edge + change[i]) };
  if (event.key === "Enter") take(choice.box);
  else draw(follower.face);
};

file.onchange = () => {
  if (file.files.length) openFile(file.files[0]).catch(failed);
  file.value = "";
};
camera.onclick = () => openCamera().catch(failed);
play.onclick = () => {
  const { element } = source;
  if (element.paused) element.play().catch(failed);
  else element.pause();
};

start().catch(failed);
