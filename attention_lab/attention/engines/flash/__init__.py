"""Softmax attention by tiles (FlashAttention), forward and backward, with a block mask that leaves tiles out."""
