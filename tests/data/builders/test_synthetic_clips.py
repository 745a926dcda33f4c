"""Generated clips as a data set: exact points in every frame, and the same readers."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from rednet_jax.data.builders import synthetic_clips
from rednet_jax.data.builders.synthetic_clips import FIRST_KEY, RednetSyntheticClips
from rednet_jax.data.prepare import Prepared, prepare
from rednet_jax.data.sources import read_clips
from rednet_jax.data.synthetic.generate import SyntheticConfig, generate_clip
from rednet_jax.errors import RednetError
from rednet_jax.evaluate.clips import clip_windows
from rednet_jax.evaluate.labels import clip_labels
from rednet_jax.landmarks.boxes import landmark_box
from rednet_jax.landmarks.builtin import HEAD70, IBUG68

SMALL = SyntheticConfig(size=40, margin=2.15, shift=0.0, log_scale=0.0)
FRAMES = 4


@pytest.fixture(scope="module", autouse=True)
def few_small_clips():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_clips, "config", lambda: SMALL)
        patch.setattr(synthetic_clips, "FRAMES", FRAMES)
        patch.setattr(RednetSyntheticClips, "counts", {"train": 2, "validation": 1})
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    return prepare("synthetic_clips", None, tmp_path_factory.mktemp("prepared"))


def data_dir(prepared: Prepared) -> Path:
    return prepared.folder.parents[1]


def test_each_clip_is_the_clip_of_its_key(prepared) -> None:
    assert prepared.samples == {"train": 2, "validation": 1}
    assert prepared.scheme == HEAD70

    # Has the name of the builder's function, so that both share a compiled program.
    @jax.jit
    def drawn(split: int, clip: int) -> tuple[jax.Array, jax.Array]:
        key = jax.random.fold_in(jax.random.key(FIRST_KEY + split), clip)
        return generate_clip(SMALL, key, FRAMES)

    for split in ("train", "validation"):
        for number, clip in enumerate(read_clips("synthetic_clips", split, data_dir(prepared))):
            images, landmarks = drawn(split == "validation", number)
            assert clip.name == f"{split}_{number:05d}"
            assert clip.identity == -1 and clip.valid.all() and clip.labelled.all()
            np.testing.assert_allclose(clip.landmarks, landmarks, atol=1e-4)
            for frame, image in enumerate(clip.images):
                # JPEG removes a part of the noise.
                assert np.abs(image - 255 * np.asarray(images[frame])).mean() < 5
                np.testing.assert_array_equal(clip.box[frame], landmark_box(landmarks[frame]))


def test_heads_move_and_stay_in_the_image(prepared) -> None:
    for clip in read_clips("synthetic_clips", "train", data_dir(prepared)):
        assert np.abs(np.diff(clip.landmarks, axis=0)).max() > 0.05
        assert clip.landmarks.min() > 0 and clip.landmarks.max() < SMALL.size - 1


def test_evaluation_and_training_read_them(prepared) -> None:
    clips = read_clips("synthetic_clips", "train", data_dir(prepared))
    labels = clip_labels("synthetic_clips train", clips, IBUG68)
    assert labels.landmarks.shape == (2 * FRAMES, 68, 2) and labels.labelled.all()
    assert labels.names[0] == "train_00000/1"
    windows = clip_windows(
        "synthetic_clips", "train", margin=1.25, size=16, data_dir=data_dir(prepared)
    )
    assert (windows.frames >= 0).sum() >= 2 * FRAMES


def test_settings_that_change_a_clip_change_the_recipe(monkeypatch) -> None:
    recipes = {RednetSyntheticClips.recipe()}
    monkeypatch.setattr(synthetic_clips, "FRAMES", 5)
    recipes.add(RednetSyntheticClips.recipe())
    monkeypatch.setattr(synthetic_clips, "config", lambda: SyntheticConfig(size=41))
    recipes.add(RednetSyntheticClips.recipe())
    monkeypatch.setattr(synthetic_clips, "generator_digest", lambda: "another")
    recipes.add(RednetSyntheticClips.recipe())
    assert len(recipes) == 4


def test_a_source_folder_is_refused(tmp_path) -> None:
    with pytest.raises(RednetError, match="synthetic_clips is generated, without a folder"):
        prepare("synthetic_clips", tmp_path, tmp_path / "data")
