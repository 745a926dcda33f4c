"""The network of RED-Net: pure functions over explicit trees, with no knowledge of files."""
