"""The report of a run: its contents, and that the page is self-contained."""

from __future__ import annotations

import base64
import copy
import json
import re
import warnings
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from rednet_jax.errors import RednetError
from rednet_jax.landmarks.drawing import write_image
from rednet_jax.train.report import plots, write_report

SVG = "{http://www.w3.org/2000/svg}"

CONFIG = {
    "name": "tiny <run>",
    "seed": 7,
    "mesh": {"data": 1, "fsdp": 1},
    "stages": [
        {
            "name": "images",
            "steps": 30,
            "clips": None,
            "data": {"train": ["300w/train"], "validation": "300w/validation"},
            "losses": {"detection": 1.0},
        },
        {
            "name": "$clips$ & more",
            "steps": 20,
            "clips": {"frames": 5},
            "data": {"train": ["300vw/train"], "validation": "300w/validation"},
            "losses": {"other": 0.5},
        },
    ],
}

ROWS = [
    {"step": 10, "loss": 4.0, "detection": 2.0, "nme": 9.0, "gradient_norm": 8.0, "waiting": 1.0},
    {"step": 10, "validation_nme": [8.0]},
    {"step": 20, "loss": 2.0, "detection": 1.0, "nme": None, "gradient_norm": 4.0},
    {"step": 30, "loss": 1.5, "nme": float("nan")},
    {"step": 20, "validation_nme": [6.0, 4.0]},
    {"step": 40, "loss": 1.0, "other": 0.5, "nme": 5.0, "gradient_norm": 2.0, "seconds": 3.0},
    {"step": 40, "validation_nme": [5.5, 5.0]},
]


@pytest.fixture
def run(tmp_path):
    """A run's folder, with an incomplete last line in metrics.jsonl."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS)
    (tmp_path / "metrics.jsonl").write_text(lines + '{"step": 45, "lo')
    machine = {"git_commit": "c0ffee", "machine": {"device": "abacus"}}
    later = {"git_commit": "decade", "machine": {"device": "slide rule"}}
    lines = (
        json.dumps({"step": step, **start})
        for step, start in ((0, machine), (10, machine), (20, later))
    )
    (tmp_path / "environment.jsonl").write_text("\n".join(lines))
    for step in 20, 40:
        image = np.full((4, 4, 3), step, np.uint8)
        write_image(tmp_path / "images" / f"step_{step:08d}.png", image)
    return tmp_path


class Reader(HTMLParser):
    """Collects a page's text outside of plots, its tags and its ids."""

    def __init__(self, page):
        super().__init__()
        self.words, self.tags, self.attributes = [], [], []
        self.feed(page)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.words.append(data)


def test_the_text_of_the_page(run):
    path = write_report(run)
    assert path == run / "report.html"
    text = Reader(path.read_text()).text
    for phrase in (
        "tiny <run>",
        "Not finished: step 40 of 50",
        "Stage $clips$ & more",
        "Best validation NME 4.00 % at step 20,",
        "Newest validation NME 5.00 % at step 40,",
        "stages: images",
        "seed 7",
        "frames 5",
        "After step 0 git_commit c0ffee machine device abacus After step 20 git_commit decade",
        "At step 40, with each face's NME",
    ):
        assert phrase in text, phrase
    assert text.count("abacus") == 1


def test_only_weights_that_exist_are_named(run):
    phrase = "best.safetensors holds its weights"
    assert phrase not in write_report(run).read_text()
    (run / "best.safetensors").touch()
    assert phrase in write_report(run).read_text()


def test_the_best_nme_is_of_the_validation_faces_of_the_newest_stage(run):
    config = copy.deepcopy(CONFIG)
    config["stages"][1]["data"]["validation"] = "300vw/validation"
    (run / "config.json").write_text(json.dumps(config))
    text = Reader(write_report(run).read_text()).text
    assert "Best validation NME 5.00 % at step 40," in text


def test_the_page_is_self_contained(run):
    page = write_report(run).read_text()
    read = Reader(page)
    assert not {"script", "link", "iframe", "object"} & set(read.tags)
    addresses = [value for name, value in read.attributes if name in ("src", "href", "xlink:href")]
    (image,) = (address for address in addresses if not address.startswith("#"))
    head, _, data = image.partition(",")
    newest = run / "images" / "step_00000040.png"
    assert (head, base64.b64decode(data)) == ("data:image/png;base64", newest.read_bytes())
    assert "@import" not in page
    # Every id that a plot refers to exists once, and every colour in light and in dark mode.
    ids = [value for name, value in read.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', page)) <= set(ids)
    for name in set(re.findall(r"var\((--[\w-]+)\)", page)):
        assert page.count(f" {name}: #") == 2, name
    assert "#0000" not in page


def test_plots_have_stages_and_legends(run):
    page = write_report(run).read_text()
    texts = [
        {text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")}
        for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    ]
    assert len(texts) == 4
    for words in texts:
        assert {"images", "$clips$ & more"} <= words
    assert {"training", "validation, pass 1", "validation, pass 2"} <= texts[1]


def test_curves_have_the_values_of_the_rows():
    by_title = {plot.title.split(",")[0]: plot.curves for plot in plots(CONFIG, ROWS)}
    assert list(by_title) == ["Loss", "NME", "Norm of the gradient", "Time spent waiting for data"]
    assert by_title["Loss"] == [
        ("loss", [(10, 4.0), (20, 2.0), (30, 1.5), (40, 1.0)]),
        ("detection", [(10, 2.0), (20, 1.0)]),
        ("other", [(40, 0.5)]),
    ]
    assert by_title["NME"] == [
        ("training", [(10, 9.0), (40, 5.0)]),
        ("validation, pass 1", [(10, 8.0), (20, 6.0), (40, 5.5)]),
        ("validation, pass 2", [(20, 4.0), (40, 5.0)]),
    ]


def test_a_curve_of_zeros_is_drawn_without_a_warning(run):
    """Such as the learning rate of a run of one step, which warms up."""
    row = {"step": 1, "loss": 4.0, "learning_rate": 0.0}
    (run / "metrics.jsonl").write_text(f"{json.dumps(row)}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "Learning rate" in write_report(run).read_text()


def test_the_page_is_deterministic(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_a_run_without_metrics_and_a_finished_run(run):
    (run / "metrics.jsonl").unlink()
    text = Reader(write_report(run).read_text()).text
    assert "Not finished: step 0 of 50" in text and "No figures yet." in text
    assert "Stage images" in text and "validation NME" not in text
    (run / "metrics.jsonl").write_text('{"step": 50, "loss": 1.0}\n')
    assert "Finished: step 50 of 50" in Reader(write_report(run).read_text()).text


def test_a_folder_that_is_not_a_run(tmp_path):
    with pytest.raises(RednetError, match=r"not a run folder, it has no config\.json"):
        write_report(tmp_path)
    for config in ('{"steps": 5}', "[]", '{"name": "a", "stages": []}', "{", '{"stages": 3}'):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(RednetError, match="not the config of a run"):
            write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(RednetError, match=r"metrics\.jsonl: Is a directory"):
        write_report(tmp_path)
