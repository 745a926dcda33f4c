"""The network of RED-Net: pure functions over explicit trees; no file, device or training knowledge."""
