"""Image files in; knows no landmark and no model."""
