"""Datasets: text, images and recall, each a `Dataset` of splits, and the batches that a run draws from them."""
