"""Draws one_pass.svg: the shapes through one pass of `compact`, and what both scans carry.

python docs/explanations/one_pass.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import jax
import jax.numpy as jnp
from flax import nnx

import rednet_jax as rednet
from rednet_jax.model.config import RedNetConfig
from rednet_jax.model.feedback import feedback_map
from rednet_jax.model.layers import Mode, normal
from rednet_jax.model.network import RedNet
from rednet_jax.model.recrop import crop_images, next_crop, on_image

FIGURE = Path(__file__).with_suffix(".svg")
BATCH = 7
"""Any number that no other axis has."""


def shapes(config: RedNetConfig) -> dict[str, Any]:
    """Returns shapes and types of the arrays of one pass, by name; the first axis is BATCH."""
    graph, leaves = nnx.split(RedNet(config, normal(0)))

    def one_pass(leaves: Any) -> dict[str, Any]:
        net: RedNet = nnx.merge(graph, leaves)
        state = rednet.initial_state(config, BATCH)
        images = jnp.zeros((BATCH, config.input_size, config.input_size, 3))
        mode = Mode(train=False, passes=state.passes, visits=1)
        crops = crop_images(config, images, state.crop)
        stem = net.stem(crops, mode)
        encoded = net.encoder(stem, state.feedback, mode)
        half = config.code_width // 2
        output, memory = net.refine(
            stem,
            state.feedback,
            state.memory,
            None,
            mode,
            mode,
            crop=state.crop,
            coarse_crop=state.crop,
        )
        return {
            "images": images,
            "crops": crops,
            "stem": stem,
            "code": encoded.code,
            "identity code": encoded.code[..., :half],
            "pose and expression code": encoded.code[..., half:],
            "features": encoded.features,
            "decoded": net.decoder(encoded.code, encoded, mode),
            "memory": memory,
            "maps": output.response_maps,
            "landmarks": output.landmarks,
            "confidence": output.confidence_logits,
            "identity": output.identity_logits,
            "z": feedback_map(config, output.response_maps, state.passes),
            "crop": next_crop(config, on_image(state.crop, output.landmarks)),
        }

    found: dict[str, Any] = jax.eval_shape(one_pass, leaves)
    return found


def draw(config: RedNetConfig) -> str:
    """Returns the figure as SVG."""
    of = jax.tree.map(_shape, shapes(config))
    parts: list[str] = []

    def text(x: float, y: float, line: str, kind: str = "") -> None:
        parts.append(f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(line)}</text>')

    def box(x: float, y: float, width: float, height: float, kind: str) -> None:
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'class="{kind}"/>'
        )

    def arrow(path: str, kind: str = "flow") -> None:
        parts.append(f'<path d="{path}" class="{kind}" marker-end="url(#head-{kind})"/>')

    def block(x: float, title: str, source: str, *lines: str, y: float = 230) -> None:
        box(x, y, 112, 50, "part")
        text(x + 56, y + 21, title, "title")
        text(x + 56, y + 39, source, "code")
        for number, line in enumerate(lines):
            text(x + 56, y + 66 + 15 * number, line, "code")

    box(10, 10, 1240, 590, "frames")
    text(24, 34, "outer lax.scan: T frames", "scan")
    box(160, 50, 1070, 460, "passes")
    text(174, 74, "inner lax.scan: K passes", "scan")

    block(28, "frame", "images", of["images"])
    block(180, "crop", "recrop.py", of["crops"])
    block(326, "stem", "encoder.py", of["stem"])
    block(472, "f_ENC", "encoder.py", f"C {of['code']}")
    block(618, "f_tRNN", "temporal.py", f"C_pe {of['pose and expression code']}", y=265)
    block(764, "f_DENC", "decoder.py", of["decoded"])
    block(910, "f_DET", "heads.py", of["maps"])
    block(1056, "f_REG", "heads.py", of["landmarks"], of["confidence"])
    block(764, "f_CLS", "heads.py", of["identity"], y=90)

    for begin in (140, 292, 438, 876, 1022):
        arrow(f"M{begin} 255 H{begin + (38 if begin == 140 else 32)}")
    arrow("M584 255 H600 V290 H616")
    arrow("M730 290 H746 V262 H762")
    arrow("M584 248 H762")
    text(673, 241, f"C_id {of['identity code']}", "code")
    arrow("M673 226 V115 H762")
    # The encoder's features.
    arrow("M528 230 V190 H820 V228", "skip")
    arrow("M820 190 H1112 V228", "skip")
    features = ", ".join(of["features"])
    text(900, 183, f"features {features}", "code")

    arrow("M966 304 V380 H528 V304", "loop")
    text(728, 396, f"z {of['z']}: no gradient,", "code left")
    text(728, 412, "resampled into the next crop", "code left")
    arrow("M1112 320 V430 H236 V304", "loop")
    text(728, 446, f"crop {of['crop']}: around this pass's landmarks, no gradient", "code left")
    arrow("M560 536 H650 V336", "carry")
    hidden, cell = of["memory"]
    text(552, 540, f"memory {hidden}, {cell}", "code right")
    arrow("M706 336 V536 H1240", "carry")
    text(728, 529, "memory after the last pass, to the next frame", "code left")
    text(
        728, 572, "carried from frame to frame: State(feedback, memory, passes, crop)", "code left"
    )
    text(728, 492, "carried from pass to pass: z, passes, batch statistics, crop", "code left")

    heads = "".join(
        f'<marker id="head-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker>'
        for kind, colour in _COLOURS.items()
    )
    strokes = "".join(
        f".{kind} {{ fill: none; stroke: {colour}; stroke-width: 1.6 }} "
        for kind, colour in _COLOURS.items()
    )
    body = "\n".join(parts)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1260 610" role="img" '
        'aria-label="Shapes through one pass of compact">\n'
        f"<style>{_STYLE}{strokes}</style>\n<defs>{heads}</defs>\n"
        '<rect width="1260" height="610" fill="#ffffff"/>\n'
        f"{body}\n</svg>\n"
    )


def _shape(leaf: jax.ShapeDtypeStruct) -> str:
    return f"[{', '.join('B' if size == BATCH else str(size) for size in leaf.shape)}]"


_COLOURS = {"flow": "#333333", "skip": "#8a8a8a", "loop": "#b3261e", "carry": "#1a56a8"}
_STYLE = (
    "text { font: 13px sans-serif; text-anchor: middle; fill: #1a1a1a } "
    ".title { font-weight: bold; font-size: 15px } .code { font: 11.5px monospace } "
    ".left { text-anchor: start } .right { text-anchor: end } "
    ".scan { text-anchor: start; font-weight: bold } "
    ".frames { fill: #eef3fb; stroke: #1a56a8 } .passes { fill: #fdf1ef; stroke: #b3261e } "
    ".part { fill: #ffffff; stroke: #333333 } "
)


if __name__ == "__main__":
    FIGURE.write_text(draw(rednet.load("compact")[0]), encoding="utf-8")
