"""The network of RED-Net: pure functions over explicit trees, without file access."""
