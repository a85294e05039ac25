"""Datasets: text, images and recall, each a `Source` of splits, and the batches that a run draws from them."""
