"""Softmax attention by tiles (FlashAttention), forward and backward, with a block mask that leaves tiles out.

For a reader of FlashAttention and FlexAttention, in the order of a call:
`forward.attend` takes q, k, v, a mask and optionally a score_mod and a mask pattern; `tiles.make_tiling` cuts the map
from queries to keys into tiles (here a window or a block mask leaves tiles out); `forward` runs the online softmax over
them and keeps the lse; `backward` recomputes the weights of a tile from the lse; both share the loops, the slices and
the logits of a tile in `operands` and the masks of a tile in `block_mask`. `near_far` merges two maps by their lse.
"""
