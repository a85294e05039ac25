"""What variants inherit: feature maps, gated scans, patterns of positions, scores, low-rank maps."""
