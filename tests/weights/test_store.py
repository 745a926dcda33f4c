"""Weights are read back unchanged, and other files are an error of one line."""

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
    """A narrow network with random arrays, so that all arrays differ."""
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
    """The file with arrays dropped or replaced, and other metadata unless it is None."""
    with safe_open(path, framework="numpy") as file:
        original = file.metadata()
    tensors = {**load_file(path), **{k.replace("__", "/"): v for k, v in changes.items()}}
    for name in drop:
        del tensors[name]
    save_file(tensors, path, original if metadata is None else metadata)
    return path


def config_text(path, **changes):
    with safe_open(path, framework="numpy") as file:
        return json.dumps({**json.loads(file.metadata()["rednet_config"]), **changes})


def error_of(path) -> str:
    with pytest.raises(RednetError) as caught:
        load(str(path))
    text = str(caught.value)
    assert path.name in text and "\n" not in text
    return text


def test_float32_is_read_back_bit_for_bit(network, file):
    config, variables = network
    read_config, read = load(str(file))
    assert read_config == config
    assert jax.tree.structure(read) == jax.tree.structure(variables)
    for (path, leaf), read_leaf in zip(
        jax.tree.leaves_with_path(variables), jax.tree.leaves(read), strict=True
    ):
        np.testing.assert_array_equal(leaf, read_leaf, err_msg=jax.tree_util.keystr(path))
        assert read_leaf.dtype == np.float32


def test_only_kernels_are_stored_in_float16(network, tmp_path):
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
def test_values_that_are_not_finite_in_their_dtype_are_not_written(network, tmp_path, value, dtype):
    config, variables = network
    variables = jax.tree.map(np.copy, variables)
    variables["params"]["identity"]["logits"]["kernel"][0, 0] = value
    path = tmp_path / "new" / "broken.safetensors"
    with pytest.raises(RednetError, match=f"broken.*identity/logits/kernel.*{dtype}"):
        write_weights(path, config, variables, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_variables_of_another_config_are_not_written(network, tmp_path):
    config, variables = network
    with pytest.raises(
        RednetError, match=r"some.*not those of the config: batch_stats/\S+ is miss"
    ):
        write_weights(tmp_path / "some.safetensors", config, {**variables, "batch_stats": {}})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_an_error(network, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RednetError, match=r"network.*cannot be written") as caught:
        write_weights(tmp_path / "file" / "network.safetensors", *network)
    assert "\n" not in str(caught.value)


def test_a_run_folder_stands_for_its_best_weights(network, file):
    folder = file.parent
    assert "no best.safetensors" in error_of(folder)
    file.rename(folder / "best.safetensors")
    assert load(str(folder))[0] == network[0]


def test_a_network_may_be_given_as_it_is_or_by_a_name_or_a_path(network, file):
    assert store.network_of(network) is network
    for checkpoint in (file, str(file)):
        assert store.network_of(checkpoint)[0] == network[0]
    names = [store.checkpoint_name(checkpoint) for checkpoint in (network, file, "compact")]
    assert names == ["compact", file.stem, "compact"]


def test_recorded_commands_have_paths_as_given_but_none_of_this_machine(network, file):
    given = ("compact", "experiments/weights/mine.safetensors", file, network)
    written = ["compact", "experiments/weights/mine.safetensors", file.stem, "CHECKPOINT"]
    assert [store.name_in_command(checkpoint) for checkpoint in given] == written


@pytest.mark.parametrize("checkpoint", ("", None, 3, ["compact"]))
def test_what_is_not_a_name_or_a_path_is_an_error(checkpoint):
    for read in (load, store.network_of):
        with pytest.raises(
            RednetError, match=r"^checkpoint: .* is not a released name, a file or a run folder$"
        ):
            read(checkpoint)


def test_a_released_name_takes_precedence_over_a_folder_of_that_name(
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


def test_all_released_weights_load():
    for name in store.released():
        _, variables = load(name)
        assert parameter_count(variables) > 0


def test_parameters_are_counted_without_statistics(network):
    _, variables = network
    leaves = jax.tree.leaves(variables["params"])
    assert parameter_count(variables) == sum(leaf.size for leaf in leaves)


@pytest.mark.parametrize("content", [b"", b"not weights at all", bytes(100), b"\xff" * 64])
def test_a_file_of_another_format_is_an_error(tmp_path, content):
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    assert "not a safetensors file" in error_of(path)


def test_a_truncated_file_is_an_error(file):
    whole = file.read_bytes()
    for length in (4, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert "not a safetensors file" in error_of(file)


class Payload:
    """Creates a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (os.environ["REDNET_TEST_FOLDER"],)


@pytest.mark.parametrize("kind", ["pickle", "zip"])
def test_a_pickle_is_never_unpickled(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("REDNET_TEST_FOLDER", str(tmp_path / "unpickled"))
    path = tmp_path / "pickle.safetensors"
    content = pickle.dumps(Payload())
    if kind == "pickle":
        path.write_bytes(content)
    else:  # in the format of torch.save, with 16 MiB of zeros in a few kilobytes
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/data/0", bytes(2**24))
    assert "not a safetensors file" in error_of(path)
    assert not (tmp_path / "unpickled").exists()
    pickle.loads(content)
    assert (tmp_path / "unpickled").exists(), "the payload has no effect"


def test_weights_of_another_library_are_an_error(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": np.zeros((2, 2), np.float32)}, path, {"format": "pt"})
    assert "not of this library" in error_of(path)
    save_file({"layer.weight": np.zeros((2, 2), np.float32)}, path)
    assert "not of this library" in error_of(path)


KERNEL = "params/identity/logits/kernel"


def test_a_missing_array_is_an_error(file):
    assert f"{KERNEL} is missing" in error_of(rewritten(file, drop=[KERNEL]))


def test_an_unknown_array_is_an_error(file):
    assert "params/more" in error_of(rewritten(file, params__more=np.zeros(3, np.float32)))


def test_an_array_of_another_shape_is_an_error(file):
    wrong = np.zeros((3, 3), np.float32)
    text = error_of(rewritten(file, params__identity__logits__kernel=wrong))
    assert f"{KERNEL} has shape (3, 3)" in text


def test_an_array_that_is_not_finite_is_an_error(file):
    wrong = load_file(file)[KERNEL]
    wrong[1, 2] = np.nan
    text = error_of(rewritten(file, params__identity__logits__kernel=wrong))
    assert KERNEL in text and "not finite" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": 8}, "unknown field 'attention'"),
        ({"landmarks": 5}, "no earlier version had 5 landmarks"),
        ({"image_size": "64"}, "model.image_size: '64' is not a whole number"),
        ({"architecture": ["compact"]}, "architecture"),
    ],
)
def test_an_invalid_config_is_an_error(file, changes, message):
    text = config_text(file, **changes)
    assert message in error_of(rewritten(file, metadata={"rednet_config": text}))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", "null", '"compact"', "{}"])
def test_invalid_metadata_are_an_error(file, text):
    error_of(rewritten(file, metadata={"rednet_config": text}))
