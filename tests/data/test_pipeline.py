"""Batches: every face once per epoch, mixed by weight, sharded, and resumed exactly."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rednet_jax.data.crops import FaceCrops
from rednet_jax.data.pipeline import Batch, ClipConfig, Reader, known_people, read_batches
from rednet_jax.errors import RednetError
from rednet_jax.landmarks.builtin import IBUG68, REDNET7


def numbered(prefix: str, clips: list[int], style: str = "300w") -> FaceCrops:
    """Returns clips of these lengths; frame i has value i in every pixel and coordinate."""
    count = sum(clips)
    order = np.arange(count)
    return FaceCrops(
        images=np.broadcast_to(order.astype(np.uint8)[:, None, None, None], (count, 2, 2, 3)),
        landmarks=np.broadcast_to(order.astype(np.float32)[:, None, None], (count, 68, 2)),
        labelled=np.ones((count, 68), bool),
        affines=np.broadcast_to(order.astype(np.float32)[:, None, None], (count, 2, 3)),
        starts=np.cumsum([0, *clips]),
        names=np.array([f"{prefix}{i}" for i in order]),
        styles=np.full(count, style),
        identities=order % 3 - 1,
    )


def faces(prefix: str, count: int, **options: str) -> FaceCrops:
    return numbered(prefix, [1] * count, **options)


def read(*sources: tuple[FaceCrops, float], **options: object) -> Reader:
    return read_batches(sources, **{"batch": 4, "scheme": IBUG68, "seed": 0, **options})


def take(reader: Reader, count: int) -> list[Batch]:
    return [next(reader) for _ in range(count)]


def names(reader: Reader, count: int) -> list[str]:
    return [name for batch in take(reader, count) for name in reader.names(batch)]


def assert_same(a: Batch, b: Batch) -> None:
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (6, 4), (3, 7), (5, 5)])
def test_every_face_is_read_once_per_epoch(count: int, batch: int) -> None:
    drawn = names(read((faces("a", count), 1.0), batch=batch), 30)
    epochs = [drawn[i : i + count] for i in range(0, len(drawn) - count + 1, count)]
    assert all(len(set(epoch)) == count for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_batches_are_full_and_match_their_names() -> None:
    reader = read((faces("a", 3), 1.0), (faces("b", 5), 1.0), batch=6)
    for batch in take(reader, 5):
        assert batch.images.shape == (6, 2, 2, 3) and batch.images.dtype == np.uint8
        assert batch.landmarks.shape == (6, 68, 2) and batch.labelled.shape == (6, 68)
        np.testing.assert_array_equal(batch.row, np.arange(6))
        assert batch.face.dtype == batch.row.dtype == np.int32
        for i, name in enumerate(reader.names(batch)):
            number = int(name[1:])
            assert (batch.images[i] == number).all() and (batch.affines[i] == number).all()
            assert (batch.landmarks[i] == number).all()
            assert batch.face[i] == number + (3 if name[0] == "b" else 0)


def test_sources_are_mixed_by_weight_in_every_batch() -> None:
    reader = read((faces("a", 7), 0.5), (faces("b", 300), 0.3), (faces("c", 50), 0.2), batch=10)
    for batch in take(reader, 20):
        counts = Counter(name[0] for name in reader.names(batch))
        assert abs(counts["a"] - 5) <= 1 and abs(counts["b"] - 3) <= 1 and abs(counts["c"] - 2) <= 1


def test_the_order_is_a_function_of_the_seed() -> None:
    first, again, second = (names(read((faces("a", 40), 1.0), seed=s), 10) for s in (1, 1, 2))
    assert first == again != second
    # Each source has its own order.
    both = names(read((faces("a", 40), 1.0), (faces("b", 40), 1.0)), 20)
    a, b = ([name[1:] for name in both if name[0] == letter] for letter in "ab")
    assert a != b


@settings(max_examples=15, deadline=None)
@given(before=st.integers(0, 9), after=st.integers(1, 5), threads=st.integers(1, 4))
def test_a_reader_resumes_exactly_from_a_saved_state(before: int, after: int, threads: int) -> None:
    def reader() -> Reader:
        return read((faces("a", 11), 1.0), (faces("b", 5), 0.4), threads=threads)

    first = reader()
    take(first, before)
    state = json.loads(json.dumps(first.get_state()))
    expected = take(first, after)
    second = reader()
    take(second, 3)
    second.set_state(state)
    for batch, resumed in zip(expected, take(second, after), strict=True):
        assert_same(batch, resumed)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_read_shards_of_the_same_batches(processes: int) -> None:
    sources = [(faces("a", 11), 1.0), (faces("b", 5), 0.4)]
    whole = take(read(*sources, batch=8), 6)
    shares = [
        take(read(*sources, batch=8, process=i, processes=processes), 6) for i in range(processes)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        together = Batch(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
        order = np.argsort(together.row)
        assert_same(batch, Batch(*(array[order] for array in together)))


def test_points_have_the_requested_scheme_and_styles() -> None:
    crops = faces("a", 4)
    crops.labelled[2] = np.arange(68) == 36
    crops.labelled[3] = np.arange(68) == 0
    other_style = faces("b", 2, style="other")
    # Face 3 has no point of the scheme.
    drawn = names(read((crops, 1.0), scheme=REDNET7), 9)
    assert set(drawn) == {"a0", "a1", "a2"}
    batch = next(read((crops, 1.0), scheme=REDNET7))
    assert batch.landmarks.shape == (4, 7, 2)
    np.testing.assert_array_equal(
        batch.landmarks != 0, (batch.labelled & (batch.face > 0)[:, None])[..., None].repeat(2, -1)
    )
    with pytest.raises(RednetError, match=r"b0, \.\.\.: no labelled face in these 2"):
        read((other_style, 1.0))
    assert set(names(read((other_style, 1.0), styles=("300w", "other")), 4)) == {"b0", "b1"}


def test_people_are_classes_over_all_sources() -> None:
    a, b = faces("a", 4), faces("b", 4)
    a.identities[:], b.identities[:] = [70, -1, 30, 70], [30, 90, -1, 10]
    reader = read((a, 1.0), (b, 1.0), batch=8)
    expected = {"a0": 2, "a1": -1, "a2": 1, "a3": 2, "b0": 1, "b1": 3, "b2": -1, "b3": 0}
    batch = next(reader)
    assert dict(zip(reader.names(batch), batch.identity.tolist(), strict=True)) == expected
    np.testing.assert_array_equal(known_people([a, b]), [10, 30, 70, 90])
    batch = next(reader := read((a, 1.0), people=np.array([30, 99])))
    known = dict(zip(reader.names(batch), batch.identity.tolist(), strict=True))
    assert known == {"a0": -1, "a1": -1, "a2": 0, "a3": -1}
    assert (next(read((faces("c", 4), 1.0), people=np.empty(0))).identity == -1).all()


def test_clips_have_random_strides_and_directions() -> None:
    crops = numbered("a", [30, 4, 9])
    reader = read((crops, 1.0), clips=ClipConfig(frames=5, largest_stride=3))
    strides = Counter()
    owners = np.repeat([0, 1, 2], [30, 4, 9])
    for batch in take(reader, 60):
        assert batch.images.shape == (4, 5, 2, 2, 3) and batch.row.shape == (4,)
        assert batch.landmarks.shape == (4, 5, 68, 2) and batch.affines.shape == (4, 5, 2, 3)
        for clip, name in zip(batch.face, reader.names(batch), strict=True):
            step = np.unique(np.diff(clip))
            assert len(step) == 1 and len(set(owners[clip])) == 1
            assert name == f"a{clip[0]}"
            strides[int(step[0])] += 1
    assert set(strides) == {-3, -2, -1, 1, 2, 3}
    assert abs(sum(n for step, n in strides.items() if step > 0) / 240 - 0.5) < 0.1
    seen = {int(frame) for batch in take(reader, 60) for frame in batch.face.ravel()}
    # The clip of four frames is too short; all frames of the others are read.
    assert seen == set(range(43)) - set(range(30, 34))


def test_a_clip_of_exactly_the_length_is_read_whole() -> None:
    reader = read((numbered("a", [5]), 1.0), clips=ClipConfig(5, 4, reverse=0.0))
    np.testing.assert_array_equal(next(reader).face, np.tile(np.arange(5), (4, 1)))
    with pytest.raises(RednetError, match="no labelled clip of 6 frames in these 5"):
        read((numbered("a", [5]), 1.0), clips=ClipConfig(6))


def test_an_image_is_repeated_in_every_frame() -> None:
    others = faces("p", 6)
    others.labelled[2] = False
    sources = (numbered("a", [9]), 0.5), (others, 0.5)
    reader = read(*sources, clips=ClipConfig(frames=3, largest_stride=2))
    shown = Counter()
    for batch in take(reader, 40):
        assert batch.images.shape == (4, 3, 2, 2, 3)
        of_images = batch.face[:, 0] >= 9
        assert of_images.sum() == 2
        assert not np.diff(batch.face[of_images], axis=1).any()
        assert np.diff(batch.face[~of_images], axis=1).all()
        shown.update((batch.face[of_images, 0] - 9).tolist())
    assert shown == dict.fromkeys((0, 1, 3, 4, 5), 16)


def test_clips_without_a_label_are_left_out() -> None:
    crops = numbered("a", [10])
    crops.labelled[:5] = False
    reader = read((crops, 1.0), clips=ClipConfig(5, 1))
    assert all((batch.face >= 5).any(axis=1).all() for batch in take(reader, 10))
    assert set(names(read((crops, 1.0)), 6)) == {f"a{i}" for i in range(5, 10)}


def test_invalid_arguments_raise() -> None:
    with pytest.raises(RednetError, match="a batch of 4 is not divisible by 3 processes"):
        read((faces("a", 3), 1.0), processes=3)
    for sources in ((), ((faces("a", 3), 0.0),)):
        with pytest.raises(RednetError, match="a weight above 0"):
            read(*sources)
    for options in ({"frames": 0}, {"largest_stride": 0}, {"reverse": 1.5}):
        with pytest.raises(RednetError, match="clips need frames"):
            ClipConfig(**options)
