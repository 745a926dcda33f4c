"""The folder of prepared data."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder(data_dir: Path | None = None) -> Path:
    """Returns the folder of prepared data: `data_dir`, $REDNET_JAX_DATA or ~/.cache/rednet_jax."""
    if data_dir is not None:
        return data_dir
    return Path(os.environ.get("REDNET_JAX_DATA") or Path.home() / ".cache" / "rednet_jax")
