"""Counter-based random numbers for pairs of tokens: the counter is the pair, so that no state is drawn from in turn.

A pair's bits are a function of the key, of the example in the batch, of the head and of the two positions, and of
nothing else: chunks, their order, recomputation and other devices leave them as they are. Threefry, Salmon et al. 2011
(https://doi.org/10.1145/2063384.2063405).
"""

import jax
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p
from jaxtyping import Array, Float, Int, Key, UInt32

from attention_lab.attention.engines.chunked import Block


def example_keys(key: Array, batch: int) -> Key[Array, " B"]:
  """A key for each example of the whole batch, `B` = `batch`; keys that are one for each example already stay.

  Raises:
    ValueError: `key` is not a typed key of `jax.random.key`.

  """
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    raise ValueError("key must be a typed one, as jax.random.key gives it, not an array from jax.random.PRNGKey")
  return key if key.ndim else jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))


def fold_in(key: Key[Array, "*B"], data: int) -> Key[Array, "*B"]:
  """The key, or each example's key, with `data` folded in."""
  return jax.vmap(jax.random.fold_in, (0, None))(key, data) if key.ndim else jax.random.fold_in(key, data)


def normal(keys: Key[Array, " B"], head: Int[Array, "C N"], block: Block) -> Float[Array, "C N T S"]:
  """Standard normal numbers for a block's pairs, from `keys` of the batch's examples and the indices of the heads."""
  key_words = jax.random.key_data(keys)[block.example]
  head_key = _bits((key_words[:, :1], key_words[:, 1:2]), (head.astype(jnp.uint32), jnp.zeros_like(key_words[:, :1])))
  counter = block.i[:, None, :, None].astype(jnp.uint32), block.j[:, None, None, :].astype(jnp.uint32)
  bits = _bits((head_key[0][:, :, None, None], head_key[1][:, :, None, None]), counter)[0]
  ones = jax.lax.bitcast_convert_type((bits >> 9) | jnp.uint32(0x3F800000), jnp.float32)  # within [1, 2)
  return 2.0**0.5 * jax.lax.erf_inv(2.0 * (ones - 1.0) - (1.0 - 2.0**-23))  # symmetrical, and never ±1


def _bits(key: tuple[UInt32[Array, "..."], ...], count: tuple[UInt32[Array, "..."], ...]) -> list[Array]:
  """Two words of random bits for each counter of two words under each key of two words; both broadcast."""
  return threefry2x32_p.bind(*jnp.broadcast_arrays(*key, *count))
