"""Data-set builders: they convert publishers' folders to random-access records, without TensorFlow.

Each is a `GeneratorBasedBuilder` of TensorFlow Datasets that writes ArrayRecord files; read them
with `tfds.builder_from_directory(folder).as_data_source(split)`.
"""

from rednet_jax.data.builders.aflw import RednetAFLW
from rednet_jax.data.builders.base import FaceBuilder
from rednet_jax.data.builders.clips_300vw import Rednet300VW
from rednet_jax.data.builders.cofw import RednetCOFW
from rednet_jax.data.builders.faces_300w import Rednet300W
from rednet_jax.data.builders.helen import RednetHelen
from rednet_jax.data.builders.lfw import RednetLFW
from rednet_jax.data.builders.synthetic import RednetSynthetic
from rednet_jax.data.builders.synthetic_clips import RednetSyntheticClips
from rednet_jax.data.builders.wflw import RednetWFLW
from rednet_jax.data.builders.ytf68 import RednetYTF68

BUILDERS: dict[str, type[FaceBuilder]] = {
    "300w": Rednet300W,
    "300vw": Rednet300VW,
    "ytf68": RednetYTF68,
    "lfw": RednetLFW,
    "helen": RednetHelen,
    "aflw": RednetAFLW,
    "wflw": RednetWFLW,
    "cofw": RednetCOFW,
    "synthetic": RednetSynthetic,
    "synthetic_clips": RednetSyntheticClips,
}
"""Builders of the data sets that can be prepared, by the names used on the command line."""
