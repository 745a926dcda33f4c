"""Kinds of input of training: weights, run folders, configs and experiments."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from hostile.kind import Kind, each, network, picture
from hostile.mutate import mutated_bytes, mutated_text

ROOT = Path(__file__).parents[2]


def weights() -> Kind:
    """Safetensors files with mutations of the header, the config in it, and the arrays."""
    from rednet_jax.export.imported import import_weights
    from rednet_jax.weights.store import load, write_torch_weights, write_weights

    config, variables = network()
    write_weights("a.safetensors", config, variables)
    write_torch_weights("t.safetensors", config, variables, feedback_steps=1)
    files = {}
    for name in ("a.safetensors", "t.safetensors"):
        files[name] = Path(name).read_bytes()

    def feed(path: Path, out: Path, chosen: str) -> None:
        each(lambda: load(path), lambda: import_weights(path, out / "b.safetensors"))

    kind = Kind(files, feed)
    plain = kind._mutated

    def mutated(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return plain(data, rng)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        if rng.random() < 0.7:
            header["__metadata__"]["rednet_config"] = mutated_text(
                header["__metadata__"]["rednet_config"], rng
            )
            text = json.dumps(header)
        else:
            text = mutated_text(json.dumps(header), rng)
        new = text.encode("utf-8", "surrogateescape")
        return len(new).to_bytes(8, "little") + new + data[8 + length :]

    kind._mutated = mutated  # type: ignore[method-assign]
    return kind


def runs() -> Kind:
    """Run folders."""
    import jax

    from rednet_jax.train.checkpoints import DIGESTS, Checkpoints
    from rednet_jax.train.experiment import Experiment, OptimiserConfig, Stage
    from rednet_jax.train.folder import best_nme, changed_data, claim, initial_weights
    from rednet_jax.train.report import write_report
    from rednet_jax.weights.store import load, write_weights

    config, variables = network()
    experiment = Experiment(
        "tiny",
        config,
        (Stage(optimiser=OptimiserConfig(warmup_steps=2), steps=20, one_pass_steps=10),),
    )
    run = Path("whole")
    claim(run, experiment, None)
    write_weights(run / "best.safetensors", config, variables)
    rows = [
        {"step": step, "loss": 3.0 / step, "nme": 5.0, "learning_rate": 1e-3, "seconds": 1.0}
        for step in range(1, 21)
    ] + [{"step": 20, "validation_nme": [9.0, 8.0], "validation_jitter": [1.0, 2.0]}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = {"step": 0, "command": "rednet train", "data": {"a": {"train x/train": "1"}}}
    (run / "environment.jsonl").write_text(json.dumps(start) + "\n")
    (run / "images").mkdir()
    picture().save(run / "images/step_20.png")
    state = {"a": np.arange(6.0, dtype=np.float32), "b": {"c": np.ones((3, 4), np.float32)}}
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), state)
    with Checkpoints(run / "checkpoints", keep=2) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, state, {"place": step}, nme=1.0 / step)
    contents = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file()
    }
    old = {name: data for name, data in contents.items() if not name.endswith(DIGESTS)}

    def resume(path: Path) -> None:
        with Checkpoints(path / "checkpoints", keep=2) as checkpoints:
            checkpoints.resume(lambda step: like)

    def feed(path: Path, out: Path, chosen: str) -> None:
        copy = out / "run"
        shutil.copytree(path, copy)
        if chosen.startswith("checkpoints/"):
            each(lambda: resume(copy))
            return
        each(
            lambda: load(copy),
            lambda: initial_weights(copy, None, experiment),
            lambda: claim(copy, experiment, None),
            lambda: changed_data(copy, {"a": {"train x/train": "1"}}),
            lambda: best_nme(copy, 0),
            lambda: write_report(copy),
        )

    kind = Kind({"run/": contents, "old/": old}, feed, text=True)
    plain = kind._mutated

    def mutated(data: bytes, rng: random.Random) -> bytes:
        return plain(data, rng) if data[:1] == b"{" else mutated_bytes(data, rng)

    kind._mutated = mutated  # type: ignore[method-assign]
    return kind


def configs() -> Kind:
    """Configs of networks as JSON, and folders of results."""
    from rednet_jax.ablate.index import write_index
    from rednet_jax.model.config import RedNetConfig

    config, _ = network()
    results = ROOT / "experiments/results"
    files: dict[str, Any] = {
        "config.json": json.dumps(config.to_json()).encode(),
        "results/": {
            name: (results / name).read_bytes()
            for name in ("ablation_losses.json", "detect.json", "compact_slices.json", "track.json")
        },
    }

    def feed(path: Path, out: Path, chosen: str) -> None:
        if path.is_dir():
            shutil.copytree(path, out / "results")
            each(lambda: write_index(out / "results"))
            return
        try:
            fields = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return
        if isinstance(fields, dict):
            each(lambda: RedNetConfig.from_json(fields))

    return Kind(files, feed, text=True)


def experiments() -> Kind:
    from rednet_jax.train.load import load_experiment

    names = ("smoke", "compact_clips", "compact_generated", "eccv_vgg_300vw", "ablation_losses")
    files = {f"{name}.py": (ROOT / f"experiments/{name}.py").read_bytes() for name in names}

    def feed(path: Path, out: Path, chosen: str) -> None:
        words = path.read_text("utf-8", "replace").split()
        rng = random.Random(len(words))
        field = rng.choice(("seed", "batch", "model.widths", "losses.sigma", "mesh.data", "name"))
        value = mutated_text(rng.choice(("1", "8,16", "0.5", "a")), rng)
        each(lambda: load_experiment(path), lambda: load_experiment(path, {field: value}))

    return Kind(files, feed, text=True)
