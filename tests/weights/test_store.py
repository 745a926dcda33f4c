"""Weights come back as they were written, and a file that is not ours is one line."""

import json
import os
import pickle
import zipfile

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from rednet_jax.errors import RednetError
from rednet_jax.model.rednet import init
from rednet_jax.weights import store
from rednet_jax.weights.store import load, parameter_count, read_weights, write_weights


@pytest.fixture(scope="module")
def network(narrow):
    """A narrow network whose arrays are all random, so that no two can be mistaken."""
    config = narrow("compact")
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init(config, jax.random.key(0)))
    return config, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.fixture
def file(network, tmp_path):
    path = tmp_path / "network.safetensors"
    write_weights(path, *network)
    return path


def rewritten(path, *, drop=(), metadata=None, **changes):
    """The file with arrays dropped or replaced and, where given, other metadata."""
    with safe_open(path, framework="numpy") as file:
        told = file.metadata()
    tensors = {**load_file(path), **{k.replace("__", "/"): v for k, v in changes.items()}}
    for name in drop:
        del tensors[name]
    save_file(tensors, path, told if metadata is None else metadata)
    return path


def config_text(path, **changes):
    with safe_open(path, framework="numpy") as file:
        return json.dumps({**json.loads(file.metadata()["rednet_config"]), **changes})


def refused(path) -> str:
    with pytest.raises(RednetError) as caught:
        load(str(path))
    text = str(caught.value)
    assert path.name in text and "\n" not in text
    return text


def test_float32_comes_back_bit_for_bit(network, file):
    config, variables = network
    read_config, read = load(str(file))
    assert read_config == config
    assert jax.tree.structure(read) == jax.tree.structure(variables)
    for (path, mine), theirs in zip(
        jax.tree.leaves_with_path(variables), jax.tree.leaves(read), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs, err_msg=jax.tree_util.keystr(path))
        assert theirs.dtype == np.float32


def test_float16_is_for_kernels_alone_and_within_half_precision(network, tmp_path):
    config, variables = network
    path = tmp_path / "half.safetensors"
    write_weights(path, config, variables, dtype="float16")
    kinds = {name: array.dtype for name, array in load_file(path).items()}
    assert all((kind == np.float16) == name.endswith("/kernel") for name, kind in kinds.items())
    assert {np.dtype(np.float16), np.dtype(np.float32)} == set(kinds.values())
    full, half = store.flat(variables), store.flat(read_weights(path)[1])
    for name, kind in kinds.items():
        if kind == np.float16:
            np.testing.assert_allclose(half[name], full[name], rtol=2**-11, atol=2**-25)
            assert half[name].dtype == np.float32
        else:
            np.testing.assert_array_equal(half[name], full[name])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("value", "dtype"), [(1e5, "float16"), (np.nan, "float32")])
def test_what_is_not_finite_in_its_type_is_not_written(network, tmp_path, value, dtype):
    config, variables = network
    variables = jax.tree.map(np.copy, variables)
    variables["params"]["identity"]["logits"]["kernel"][0, 0] = value
    path = tmp_path / "new" / "broken.safetensors"
    with pytest.raises(RednetError, match=f"broken.*identity/logits/kernel.*{dtype}"):
        write_weights(path, config, variables, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line(network, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RednetError, match=r"network.*cannot be written") as caught:
        write_weights(tmp_path / "file" / "network.safetensors", *network)
    assert "\n" not in str(caught.value)


def test_a_run_folder_stands_for_its_best_weights(network, file):
    folder = file.parent
    assert "without best.safetensors" in refused(folder)
    file.rename(folder / "best.safetensors")
    assert load(str(folder))[0] == network[0]


def test_released_weights_are_known_by_name_even_beside_a_folder_of_that_name(
    network, file, tmp_path, monkeypatch
):
    package = tmp_path / "package"
    package.mkdir()
    file.rename(package / "tiny.safetensors")
    monkeypatch.setattr(store.importlib.resources, "files", lambda _: package)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert store.released() == ["tiny"]
    assert load("tiny")[0] == network[0]
    with pytest.raises(RednetError, match=r"absent: no such .*released: tiny"):
        load("absent")


def test_every_weight_in_the_package_loads():
    for name in store.released():
        _, variables = load(name)
        assert parameter_count(variables) > 0


def test_parameters_are_counted_without_statistics(network):
    _, variables = network
    leaves = jax.tree.leaves(variables["params"])
    assert parameter_count(variables) == sum(leaf.size for leaf in leaves)


@pytest.mark.parametrize("content", [b"", b"not weights at all", bytes(100), b"\xff" * 64])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    assert "not a safetensors file" in refused(path)


def test_a_file_cut_short_is_refused(file):
    whole = file.read_bytes()
    for length in (4, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert "not a safetensors file" in refused(file)


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["REDNET_TEST_BOMB"],)


@pytest.mark.parametrize("kind", ["pickle", "zip"])
def test_a_pickle_is_never_unpickled(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("REDNET_TEST_BOMB", str(tmp_path / "exploded"))
    path = tmp_path / "bomb.safetensors"
    content = pickle.dumps(Bomb())
    if kind == "pickle":
        path.write_bytes(content)
    else:  # as torch.save packs it, beside 16 MiB of zeros in a few kilobytes
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/data/0", bytes(2**24))
    assert "not a safetensors file" in refused(path)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(content)
    assert (tmp_path / "exploded").exists(), "the bomb of this test is a dud"


def test_weights_of_another_library_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": np.zeros((2, 2), np.float32)}, path, {"format": "pt"})
    assert "not of this library" in refused(path)
    save_file({"layer.weight": np.zeros((2, 2), np.float32)}, path)
    assert "not of this library" in refused(path)


KERNEL = "params/identity/logits/kernel"


def test_a_missing_array_is_named(file):
    assert f"{KERNEL} is missing" in refused(rewritten(file, drop=[KERNEL]))


def test_an_array_too_many_is_named(file):
    assert "params/more" in refused(rewritten(file, params__more=np.zeros(3, np.float32)))


def test_an_array_of_another_shape_is_named(file):
    wrong = np.zeros((3, 3), np.float32)
    text = refused(rewritten(file, params__identity__logits__kernel=wrong))
    assert f"{KERNEL} is (3, 3)" in text


def test_an_array_that_is_not_finite_is_named(file):
    wrong = load_file(file)[KERNEL]
    wrong[1, 2] = np.nan
    text = refused(rewritten(file, params__identity__logits__kernel=wrong))
    assert KERNEL in text and "not finite" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attention": 8}, "unknown field 'attention'"),
        ({"landmarks": 5}, "no earlier version had 5 landmarks"),
        ({"image_size": "64"}, "model.image_size: '64' is not a whole number"),
        ({"architecture": ["compact"]}, "architecture"),
    ],
)
def test_a_config_that_is_not_ours_is_named(file, changes, told):
    text = config_text(file, **changes)
    assert told in refused(rewritten(file, metadata={"rednet_config": text}))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", "null", '"compact"', "{}"])
def test_metadata_that_is_no_config_is_refused(file, text):
    refused(rewritten(file, metadata={"rednet_config": text}))
