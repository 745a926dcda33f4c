"""Data sets: builders, readers, split lists and augmentation on the device."""
