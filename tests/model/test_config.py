"""Configs: presets, invalid fields, and the sizes of the networks at full width."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import IBUG68, REDNET7
from rednet_jax.landmarks.schemes import Scheme
from rednet_jax.model import rednet
from rednet_jax.model.config import RedNetConfig


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def parameters(config: RedNetConfig) -> dict[str, int]:
    variables = jax.eval_shape(lambda: rednet.init(config, jax.random.key(0)))
    return {part: count(tree) for part, tree in variables["params"].items()}


def test_eccv_vgg_has_the_papers_size() -> None:
    sizes = parameters(RedNetConfig.preset("eccv_vgg"))
    assert sizes["encoder"] == pytest.approx(14.72e6, rel=0.01)
    assert sizes["decoder"] + sizes["detection"] == pytest.approx(14.76e6, rel=0.01)


def test_ijcv_resnet_has_the_journal_codes_size() -> None:
    sizes = parameters(RedNetConfig.preset("ijcv_resnet"))
    not_in_journal_code = sizes["temporal"] + sizes["identity"]
    assert sum(sizes.values()) - not_in_journal_code == pytest.approx(35.2e6, rel=0.01)


@pytest.mark.parametrize("preset", ["compact", "separable"])
def test_our_presets_have_less_than_1_5_million_parameters(preset: str) -> None:
    assert sum(parameters(RedNetConfig.preset(preset)).values()) < 1.5e6


@pytest.mark.parametrize(
    ("preset", "maps", "z"),
    [
        ("compact", (32, 32, 69), (32, 32, 69)),
        ("separable", (32, 32, 69), (16, 16, 69)),
        ("eccv_vgg", (128, 128, 69), (128, 128, 69)),
        ("ijcv_resnet", (128, 128, 68), (64, 64, 7)),
    ],
)
def test_shapes_at_full_width(
    preset: str, maps: tuple[int, int, int], z: tuple[int, int, int]
) -> None:
    config = RedNetConfig.preset(preset)
    size = config.image_size

    def run() -> Any:
        variables = rednet.init(config, jax.random.key(0))
        state = rednet.initial_state(config, 2)
        clips = jnp.zeros((2, 3, size, size, 3))
        return rednet.align_clip(config, variables, clips, state, feedback_steps=4)

    out, state, stats = jax.eval_shape(run)
    assert out.landmarks.shape == (2, 3, 68, 2)
    assert out.confidence.shape == (2, 3, 68)
    assert out.response_maps.shape == (2, 3, *maps)
    assert out.per_step.landmarks.shape == (4, 2, 3, 68, 2)
    assert state.feedback.shape == (2, *z)
    if preset == "ijcv_resnet":
        assert out.coarse.shape == (2, 3, 64, 64, 7)
        assert {leaf.shape[0] for leaf in jax.tree.leaves(stats)} == {1, 2}
    else:
        assert out.coarse is None


OWN5 = Scheme(
    name="own5",
    mirror=(1, 0, 2, 4, 3),
    mean_shape=((-0.2, -0.2), (0.2, -0.2), (0.0, 0.0), (-0.15, 0.2), (0.15, 0.2)),
    normaliser=((0,), (1,)),
    outline=((-0.5, -0.3), (0.5, -0.3), (0.0, 0.5), (0.0, -0.5)),
)


@pytest.mark.parametrize("scheme", [IBUG68, REDNET7, OWN5], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("preset", ["compact", "separable", "eccv_vgg", "ijcv_resnet"])
def test_json_round_trip(preset: str, scheme: Scheme) -> None:
    if (preset, scheme) == ("ijcv_resnet", OWN5):
        pytest.skip("its coarse pass needs the landmarks of rednet7")
    config = RedNetConfig.preset(preset, crop_margin=1.5, scheme=scheme)
    plain = config.to_json()
    # A built-in scheme is written as its name, any other in full.
    assert (plain["scheme"] == scheme.name) == (scheme is not OWN5)
    assert RedNetConfig.from_json(json.loads(json.dumps(plain))) == config


@pytest.mark.parametrize(("landmarks", "scheme"), [(68, IBUG68), (7, REDNET7)])
def test_the_number_of_landmarks_in_earlier_checkpoints_selects_their_scheme(
    landmarks: int, scheme: Scheme
) -> None:
    fields = RedNetConfig.preset("compact").to_json()
    del fields["scheme"]
    assert RedNetConfig.from_json({**fields, "landmarks": landmarks}).scheme is scheme
    assert RedNetConfig.from_json(fields).scheme is IBUG68
    with pytest.raises(RednetError, match="no earlier version had 5 landmarks"):
        RedNetConfig.from_json({**fields, "landmarks": 5})


def test_former_field_names_of_earlier_checkpoints_are_read() -> None:
    config = RedNetConfig.preset("compact", recrop="similarity", recrop_margin=1.1, context=1.5)
    fields = config.to_json()
    fields["register"], fields["registered_margin"] = (
        fields.pop("recrop"),
        fields.pop("recrop_margin"),
    )
    assert RedNetConfig.from_json(fields) == config


@pytest.mark.parametrize(
    ("preset", "changes", "complaint"),
    [
        ("compact", {"image_size": 100}, "image_size 100 is not a positive multiple of 32"),
        ("compact", {"landmarks": 5}, "no earlier version had 5 landmarks"),
        ("compact", {"scheme": "ibug5"}, "scheme: no built-in scheme 'ibug5' (ibug68, rednet7"),
        ("compact", {"feedback_steps": 0}, "at least one pass must be trained"),
        ("compact", {"code_width": 129}, "does not split into C_id and C_pe"),
        ("compact", {"widths": (1, 2)}, "compact has 7 widths, not 2"),
        ("compact", {"widths": "wide"}, "model.widths: 'wide' is not a tuple, each item a whole"),
        ("compact", {"widths": [8, 8.0]}, "model.widths[1]: 8.0 is not a whole number"),
        ("compact", {"image_size": True}, "model.image_size: True is not a whole number (int)"),
        ("compact", {"crop_margin": "1"}, "model.crop_margin: '1' is not a finite number (float)"),
        ("compact", {"crop_margin": 9.0}, "crop_margin 9.0 is not in"),
        ("compact", {"feedback": "maps"}, "not one of response_maps, label_map, none"),
        ("compact", {"feedback_step": 1}, "unknown field 'feedback_step'"),
        ("compact", {"recurrent_width": 0}, "every width must be positive"),
        ("eccv_vgg", {"code_width": 256}, "must equal the width of its last stage, 512, not 256"),
        ("ijcv_resnet", {"feedback": "label_map"}, "softmax maps; ijcv_resnet has none"),
        (
            "ijcv_resnet",
            {"scheme": dataclasses.replace(REDNET7, name="own7", conversions=())},
            "the maps of rednet7's landmarks back, and scheme own7 does not contain them",
        ),
        (
            "compact",
            {"feedback": "label_map", "open_feedback_gradient": True},
            "a label map has no gradient",
        ),
        ("large", {}, "no preset 'large'; there are compact, eccv_vgg, ijcv_resnet"),
    ],
)
def test_invalid_fields_raise_a_one_line_error(
    preset: str, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RednetError) as error:
        RedNetConfig.preset(preset, **changes)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
