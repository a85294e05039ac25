"""Hierarchical attention: near keys one by one, farther ones by the mean of ever wider cells.

Zhu and Soricut 2021, H-Transformer-1D, https://arxiv.org/abs/2107.11906, section 4.

    out_t = Σ_s exp(l_ts) v_s / Σ_s exp(l_ts),   l_ts = s · q_t·k̄(⌊s/2^l⌋),   s = 1/√H
    l = the smallest level ≥ 0 with |⌊t/(b·2^l)⌋ − ⌊s/(b·2^l)⌋| ≤ 1

k̄ is the mean over the valid tokens of a cell of 2^l places. Time and memory O(T·b·log(T/b)). Honours causal (a wide
cell lies wholly in the past) and padding; refuses every other pattern, a bias, cross-attention, given positions and
decoding. Departure: queries are not averaged, which would show a query the later ones of its cell.
"""

import dataclasses
import functools
import itertools
import operator
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attention_lab.attention.base import Attention, Call, Claims, logits_dtype, refuse_positions
from attention_lab.attention.engines.layout import heads_last
from attention_lab.attention.families import segment_mean, softmax


class Level(NamedTuple):
  """One level of the hierarchy: the X slots that each block of queries reads, of tokens that share a key."""

  logits: Float[Array, "B K G T X"]
  readable: Bool[Array, "#B 1 1 T X"]
  values: Float[Array, "B K blocks X V"]


@dataclasses.dataclass(frozen=True)
class Hierarchical(Attention, at_least_one=("block",)):
  block: int = 16  # b, places
  scale: float | None = None  # factor of the logits; None = 1/√H

  def claims(self) -> Claims:
    masks = frozenset({"causal", "q_valid", "kv_valid"})
    return Claims(masks=masks, cross=False, decode=False, exactness="other", time_exponent=1)

  def attend(self, params, q, k, v, call: Call):
    refuse_positions(self, call)
    (B, T, N, H), K, top = q.shape, k.shape[2], 0
    while self.block * 2 ** (top + 1) < T:
      top += 1
    padding = -T % (self.block * 2**top)
    valid = jnp.pad(segment_mean.valid_keys(call, T), ((0, 0), (0, padding)))
    q, k, v = (jnp.pad(a, ((0, 0), (0, padding), (0, 0), (0, 0))).astype(logits_dtype(q, k, v)) for a in (q, k, v))
    q = jnp.moveaxis(q.reshape(B, -1, K, N // K, H), 1, 3) * softmax.scale(self.scale, q)
    levels = [self._level(level, q, k, v, valid, call.mask.causal) for level in range(top + 1)]
    seen = jnp.concatenate([level.readable for level in levels], axis=-1)
    weights = softmax.weights(jnp.concatenate([level.logits for level in levels], axis=-1), seen)
    ends = list(itertools.accumulate(level.values.shape[3] for level in levels))
    parts = zip(jnp.split(weights, ends[:-1], axis=-1), levels, strict=True)
    out = functools.reduce(operator.add, (_combined(part, level.values) for part, level in parts))
    return heads_last(out[:, :, :, :T], call.mask.q_valid)

  def _level(self, level: int, q: Array, k: Array, v: Array, valid: Array, causal: bool) -> Level:
    """The slots of one level; each lies within one block of the level below, so that it is read whole or not at all."""
    rows, cell = self.block * 2**level, 2**level
    slot = cell if self.block % 2 == 0 or level == 0 else cell // 2
    (k,), _ = segment_mean.by_runs(cell, valid, k)
    (v,), occupied = segment_mean.by_runs(slot, valid, v)
    count = valid.reshape(len(valid), -1, slot).sum(axis=2, dtype=v.dtype)
    sides = (-1, 0, 1) if level == 0 else (-1, 1)
    slots = (jnp.repeat(k, cell // slot, axis=1), v, count, occupied)
    k, v, count, occupied = (_beside(array, rows // slot, sides) for array in slots)
    k, v = (jnp.moveaxis(array, 3, 1) for array in (k, v))
    logits = jnp.einsum("bkgirh,bkixh->bkgirx", q.reshape(*q.shape[:3], -1, rows, q.shape[-1]), k)
    logits += jnp.log(jnp.maximum(count, 1))[:, None, None, :, None]
    t = jnp.arange(rows)[:, None]
    s = jnp.concatenate([side * rows + slot * jnp.arange(rows // slot) for side in sides])[None]
    pattern = abs(t // (rows // 2) - s // (rows // 2)) > 1 if level else jnp.ones((1, 1), bool)
    pattern = pattern & (s <= t) if causal else pattern
    readable = occupied[:, None, None, :, None] & pattern[None, None, None, None]
    readable = jnp.broadcast_to(readable, (len(readable), 1, 1, logits.shape[3], *logits.shape[4:]))
    return Level(logits.reshape(*q.shape[:4], -1), readable.reshape(len(readable), 1, 1, q.shape[3], -1), v)


def _combined(weights: Float[Array, "B K G T X"], values: Float[Array, "B K blocks X V"]) -> Float[Array, "B K G T V"]:
  """The values of one level by their weights."""
  blocks = weights.reshape(*weights.shape[:3], values.shape[2], -1, weights.shape[-1])
  return jnp.einsum("bkgirx,bkixv->bkgirv", blocks, values).reshape(*weights.shape[:4], -1)


def _beside(array: Array, size: int, sides: tuple[int, ...]) -> Array:
  """The blocks of `size` tokens of an array `B S …`, each joined with the blocks at its `sides`: `B blocks X …`."""
  blocks = array.reshape(len(array), -1, size, *array.shape[2:])
  around = jnp.pad(blocks, ((0, 0), (1, 1), *[(0, 0)] * (blocks.ndim - 2)))
  return jnp.concatenate([around[:, 1 + side :][:, : blocks.shape[1]] for side in sides], axis=2)
