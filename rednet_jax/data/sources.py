"""The data sets that commands know by name, and where their folder is."""

import os
from collections.abc import Callable
from pathlib import Path

from rednet_jax.data.images_300w import read_300w
from rednet_jax.data.samples import Samples
from rednet_jax.errors import RednetError

READERS: dict[str, Callable[[Path, str], Samples]] = {"300w": read_300w}


def read_split(data: str, split: str, data_dir: Path | None = None) -> Samples:
    """Opens a split of a data set by name.

    Args:
        data: the data set's name, a key of `READERS`.
        split: a split of it.
        data_dir: the folder of its official tree; None for $REDNET_JAX_DATA.

    Raises:
        RednetError: an unknown name or split, no folder given, or a folder without the data.
    """
    if data not in READERS:
        raise RednetError(f"no data set '{data}'; known: {', '.join(READERS)}")
    if data_dir is None:
        if not os.environ.get("REDNET_JAX_DATA"):
            raise RednetError(f"where is {data}? give --data-dir FOLDER or set REDNET_JAX_DATA")
        data_dir = Path(os.environ["REDNET_JAX_DATA"])
    return READERS[data](data_dir, split)
