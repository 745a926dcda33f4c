"""Augmentation on the device: one resampling out of the cached faces, then the image itself.

Everything is a function of an explicit key, one per face or clip, so a draw depends on (seed, step,
sample) and never on the device or on the rest of a batch.
"""

from rednet_jax.data.augment.clips import augment_clips
from rednet_jax.data.augment.config import Augmentation, Drift
from rednet_jax.data.augment.faces import augment

__all__ = ["Augmentation", "Drift", "augment", "augment_clips"]
