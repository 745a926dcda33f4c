"""Data-set readers, split lists and augmentation on the device."""
