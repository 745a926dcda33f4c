"""The output folder of an export."""

from __future__ import annotations

import json

import pytest

from rednet_jax.errors import RednetError
from rednet_jax.export.folder import claim, initial_state, publish, signatures


@pytest.fixture
def staged(tmp_path):
    """A folder with two files to publish."""
    folder = tmp_path / "staged"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).write_text("new")
    return folder


def written(*files, target="onnx", checkpoint="tiny"):
    return {"target": target, "checkpoint": checkpoint, "files": list(files)}


def test_the_description_is_written_last_and_an_old_one_deleted_first(staged, tmp_path):
    out = tmp_path / "out"
    publish(staged, out, written("one"))
    assert json.loads((out / "export.json").read_text()) == written("one")
    # A folder of that name cannot be replaced by a file.
    (out / "two").mkdir()
    with pytest.raises(RednetError, match=r"two: cannot be written"):
        publish(staged, out, written("one", "two"))
    assert {path.name for path in out.iterdir()} == {"one", "two"}


def test_another_export_is_not_overwritten(staged, tmp_path):
    out, source = tmp_path / "out", tmp_path / "tiny.safetensors"
    claim(out, "onnx", "tiny", source)
    assert not out.exists()
    publish(staged, out, written("one"))
    claim(out, "onnx", "tiny", source)
    for target, name in (("torch", "tiny"), ("onnx", "other")):
        with pytest.raises(
            RednetError, match=r"out: already has tiny as onnx; use another folder$"
        ):
            claim(out, target, name, source)
    (out / "export.json").write_text("[]")
    with pytest.raises(RednetError, match=r"export\.json: does not describe an export$"):
        claim(out, "onnx", "tiny", source)


def test_files_of_others_are_not_overwritten(tmp_path):
    (tmp_path / ".hidden").touch()
    claim(tmp_path, "web", "tiny", tmp_path / "tiny.safetensors")
    (tmp_path / "index.html").write_text("a page")
    with pytest.raises(RednetError, match=r"has files, but no export\.json; use a new or empty"):
        claim(tmp_path, "web", "tiny", tmp_path / "tiny.safetensors")


def test_a_file_as_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            RednetError, match=r"cannot be written \(\S+file is not a writable folder"
        ):
            claim(out, "onnx", "tiny", tmp_path / "tiny.safetensors")


def test_signatures_have_the_batch_size(narrow):
    config = narrow("compact", recrop="similarity", context=1.5)
    described = signatures(config, batch="1")["stream"]
    arrays = {**described["inputs"], **described["outputs"]}
    assert all("[1" in text for text in arrays.values())
    assert set(initial_state(config)) <= set(arrays)
