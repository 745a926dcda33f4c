"""Generated faces as a data set: keys by split and number, exact points, and the recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from data.builders.trees import names, read_back

from rednet_jax.data.builders import synthetic
from rednet_jax.data.builders.synthetic import RednetSynthetic
from rednet_jax.data.prepare import Prepared, prepare
from rednet_jax.data.synthetic.generate import SyntheticConfig, generate
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.crops import apply_affine, crop_transform
from rednet_jax.model.config import RedNetConfig
from rednet_jax.train.experiment import DataConfig

SMALL = dataclasses.replace(synthetic.config(), size=48)


@pytest.fixture(scope="module", autouse=True)
def few_small_faces():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "config", lambda: SMALL)
        patch.setattr(RednetSynthetic, "counts", {"train": 6, "validation": 3})
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    return prepare("synthetic", None, tmp_path_factory.mktemp("prepared"))


def data_dir(prepared: Prepared) -> Path:
    return prepared.folder.parents[1]


def test_each_sample_is_the_face_of_its_key(prepared) -> None:
    assert prepared.samples == {"train": 6, "validation": 3}

    # Has the name of the builder's function, so that both share a compiled program.
    @jax.jit
    def drawn(split: int, face: int) -> tuple[jax.Array, jax.Array]:
        return generate(SMALL, jax.random.fold_in(jax.random.key(split), face))

    for number, (split, samples) in enumerate(read_back(prepared).items()):
        assert names(samples) == [f"{split}/{i:05d}" for i in range(len(samples))]
        for face, sample in enumerate(samples):
            image, landmarks = drawn(number, face)
            # JPEG removes a part of the noise.
            assert np.abs(sample["image"] - 255 * np.asarray(image)).mean() < 5
            np.testing.assert_allclose(sample["landmarks"], landmarks, atol=1e-4)
            assert sample["identity"] == -1 and sample["style"] == b"300w"


def test_the_image_contains_all_points_and_the_crop_of_training(prepared) -> None:
    cover, margin = DataConfig().cover, RedNetConfig.preset("compact").crop_margin
    for sample in [s for samples in read_back(prepared).values() for s in samples]:
        assert sample["labelled"].all()
        np.testing.assert_array_equal(sample["box"], landmark_box(sample["landmarks"]))
        affine = crop_transform(sample["box"], margin=cover * margin, size=100)
        corners = apply_affine(affine, np.array([[-0.5, -0.5], [99.5, 99.5]]))
        assert corners.min() >= -0.5 and corners.max() <= SMALL.size - 0.5


def test_all_faces_differ(prepared) -> None:
    shapes = [s["landmarks"] for samples in read_back(prepared).values() for s in samples]
    for i, shape in enumerate(shapes):
        assert all(np.abs(shape - earlier).max() > 1 for earlier in shapes[:i])


def test_a_second_preparation_draws_nothing(prepared, monkeypatch) -> None:
    monkeypatch.setattr(RednetSynthetic, "read", lambda *_: pytest.fail("a face is drawn again"))
    again = prepare("synthetic", None, data_dir(prepared))
    assert not again.built and again.samples == prepared.samples


def test_more_faces_start_with_the_same_faces(prepared, tmp_path, monkeypatch) -> None:
    data = tmp_path / "data"
    monkeypatch.setattr(RednetSynthetic, "counts", {"train": 3, "validation": 3})
    few = read_back(prepare("synthetic", None, data))["train"]
    monkeypatch.setattr(RednetSynthetic, "counts", {"train": 6, "validation": 3})
    assert prepare("synthetic", None, data).built
    for a, b in zip(few, read_back(prepared)["train"], strict=False):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["landmarks"], b["landmarks"])


def test_a_changed_generator_changes_the_recipe(tmp_path, monkeypatch) -> None:
    recipes = {RednetSynthetic.recipe()}
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "config", lambda: SyntheticConfig(size=48, yaw=10))
        recipes.add(RednetSynthetic.recipe())
    package = tmp_path / "synthetic"
    package.mkdir()
    monkeypatch.setattr(synthetic.resources, "files", lambda _: tmp_path)
    for code in ("BRIGHTNESS = 1", "BRIGHTNESS = 2"):
        (package / "paint.py").write_text(code)
        recipes.add(RednetSynthetic.recipe())
    assert len(recipes) == 4
