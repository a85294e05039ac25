"""A cache of keys and values for decoding: slots with positions, a ring where a window bounds it.

Heads stand before slots, as products with one query want them: a step then copies no part of the cache but new tokens.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention_lab.attention.positions import Positions

Cache = dict[str, Array]


class Appended(NamedTuple):
  """The cache after T new tokens, and the keys and values that these attend to."""

  state: Cache
  k: Float[Array, "B S K H"]
  v: Float[Array, "B S K V"]
  positions: Positions  # of the new tokens and of the S slots; an empty slot is at −1
  real: Bool[Array, "B T"]  # False on the right padding of ragged rows
  overflow: Bool[Array, "B T"]  # True where a token found no slot


def empty(batch: int, slots: int, kv_heads: int, widths: tuple[int, int], dtype: Any) -> Cache:
  """A cache without a token.

  Args:
    batch: B, sequences.
    slots: tokens of each sequence that have a place.
    kv_heads: K.
    widths: H of the keys and V of the values.
    dtype: of keys and values.

  Returns:
    Keys `B K slots H`, values `B K slots V`, positions `B slots`, all −1, and lengths `B`, all 0.
  """
  return {
    "k": jnp.zeros((batch, kv_heads, slots, widths[0]), dtype),
    "v": jnp.zeros((batch, kv_heads, slots, widths[1]), dtype),
    "positions": jnp.full((batch, slots), -1, jnp.int32),
    "length": jnp.zeros((batch,), jnp.int32),
  }


def append(
  state: Cache, k: Float[Array, "B T K H"], v: Float[Array, "B T K V"], lengths: Int[Array, "B"] | None, ring: bool
) -> Appended:
  """Writes T tokens into a cache.

  Args:
    state: the cache of the tokens before.
    k: keys of the new tokens.
    v: their values.
    lengths: how many of the T tokens are real, from the first; None = all.
    ring: the newest tokens overwrite the oldest. Several at once would overwrite keys that the first of them still
      read, so there they attend to the old slots and to each other side by side.

  Returns:
    The cache after them, and what they attend to.
  """
  (B, T), slots = k.shape[:2], state["positions"].shape[1]
  count = jnp.full((B,), T, jnp.int32) if lengths is None else lengths
  i = state["length"][:, None] + jnp.arange(T, dtype=jnp.int32)[None]
  real = jnp.arange(T)[None] < count[:, None]
  stays = real & (i >= (state["length"] + count - slots)[:, None]) if ring else real & (i < slots)
  slot = jnp.where(stays, i % slots, slots)
  rows = jnp.arange(B)[:, None]
  new = {name: value.astype(state[name].dtype) for name, value in (("k", k), ("v", v))}
  written, target = {**new, "positions": i}, slot
  if B * T == 1:  # of a single write the CPU compiler makes a slice, merges it into readers, and copies the cache
    target = jnp.pad(slot, ((0, 0), (0, 1)), constant_values=slots)
    written = {name: jnp.concatenate([value, value], axis=1) for name, value in written.items()}
  after = {name: state[name].at[rows, :, target].set(written[name], mode="drop") for name in new}
  after["positions"] = state["positions"].at[rows, target].set(written["positions"], mode="drop")
  after["length"] = state["length"] + count
  overflow = jnp.zeros_like(real) if ring else i >= slots
  if T == 1 or not ring:
    held = {name: jnp.swapaxes(after[name], 1, 2) for name in new}
    return Appended(after, held["k"], held["v"], Positions(q=i, k=after["positions"]), real, overflow)
  both = {name: jnp.concatenate([jnp.swapaxes(state[name], 1, 2), new[name]], axis=1) for name in new}
  j = jnp.concatenate([state["positions"], jnp.where(real, i, -1)], axis=1)
  return Appended(after, both["k"], both["v"], Positions(q=i, k=j), real, overflow)
