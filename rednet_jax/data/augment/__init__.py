"""Augmentation on the device: each cached face is resampled once, then its pixels are degraded.

Every draw comes from an explicit key, one per face or clip, so it depends on (seed, step, sample)
only, and not on the device or on the rest of the batch.
"""

from rednet_jax.data.augment.bursts import Bursts, add_bursts
from rednet_jax.data.augment.clips import augment_clips
from rednet_jax.data.augment.config import Augmentation, Drift
from rednet_jax.data.augment.faces import augment

__all__ = ["Augmentation", "Bursts", "Drift", "add_bursts", "augment", "augment_clips"]
