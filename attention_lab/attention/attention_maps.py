"""Attention maps of any variant, read from the outside, and figures of them: entropy, distance, rollout.

A variant that is linear or affine in its values is a matrix of weights: fed the identity as values, it returns that
matrix. So the program that is looked at is the program that runs, and nothing has to be returned, stored or hooked.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attention_lab.attention.base import Attention, Call, Params, Unsupported
from attention_lab.attention.composed import Composed
from attention_lab.attention.head_mixture import HeadMixture


def weights(variant: Attention, params: Params, q: Any, k: Any, v: Any, call: Call) -> Float[Array, "B N T S"]:
  """The exact map from values to outputs, of a variant that is affine in its values.

  The identity goes in as slabs of V columns, so that the variant sees the width it was made for.

  Args:
    variant: the variant to look at.
    params: its arrays.
    q: queries `B T N H`, or None where `projections` has no q; likewise k.
    k: keys `B S K H`.
    v: values `B S K V`, of which only the shape counts.
    call: mask, positions, bias and the rest, as in any call.

  Returns:
    The weight with which each query reads the value of each key. Those of softmax are at least 0 and sum to 1.

  Raises:
    Unsupported: the output is not affine in the values, or the variant reads none.
  """
  name, claims = type(variant).__name__, variant.claims()
  if "v" not in variant.projections or claims.values == "nonlinear":
    raise Unsupported(f"{name} is not affine in its values, so that it has no map of weights")
  if _convolves(variant):
    raise Unsupported(
      f"{name} mixes values by a convolution before it weighs them: take the map of its mechanism alone"
    )
  (B, S, K, V), slabs = v.shape, -(-v.shape[1] // v.shape[3])
  identity = jnp.eye(S, slabs * V, dtype=jnp.float32).reshape(S, slabs, V)

  def run(values: Float[Array, "S V"]) -> Float[Array, "B T N V"]:
    spread = jnp.broadcast_to(values[None, :, None, :], (B, S, K, V))
    return variant.with_aux(params, q, k, spread, call).out

  offset = run(jnp.zeros((S, V)))
  columns = jax.lax.map(lambda slab: run(identity[:, slab]) - offset, jnp.arange(slabs))
  return jnp.moveaxis(columns, 0, 3).reshape(*offset.shape[:3], slabs * V)[..., :S].swapaxes(1, 2)


def entropy(maps: Float[Array, "*B T S"]) -> Float[Array, "*B T"]:
  """The entropy −Σ p log p of each row, in nats.

  Args:
    maps: weights; each row is divided by its sum of absolute values first.

  Returns:
    0 for a row that reads one key, log S for one that reads all alike.
  """
  shares = jnp.abs(maps) / jnp.maximum(jnp.sum(jnp.abs(maps), axis=-1, keepdims=True), 1e-30)
  return -jnp.sum(jnp.where(shares > 0, shares * jnp.log(jnp.where(shares > 0, shares, 1.0)), 0.0), axis=-1)


def distance(maps: Float[Array, "*B T S"]) -> Float[Array, "*B T"]:
  """The mean |i − j| of each row, in tokens, weighted by the absolute weights.

  Args:
    maps: weights of queries and keys that stand at 0, 1, 2, ….

  Returns:
    A number in [0, S − 1] for each row; 0 for a row of zeros.
  """
  apart = jnp.abs(jnp.arange(maps.shape[-2])[:, None] - jnp.arange(maps.shape[-1])[None])
  moment = jnp.einsum("...ts,ts->...t", jnp.abs(maps), apart.astype(maps.dtype))
  return moment / jnp.maximum(jnp.sum(jnp.abs(maps), axis=-1), 1e-30)


def rollout(layers: list[Float[Array, "B N T T"]]) -> Float[Array, "B T T"]:
  """Attention rollout over layers with residual connections.

  Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928, section 3.

  Args:
    layers: the maps of each layer, from the first to the last.

  Returns:
    How much each token of the last layer draws from each input token; rows sum to 1.
  """
  identity = total = jnp.eye(layers[0].shape[-1])[None]
  for maps in layers:
    step = 0.5 * maps.mean(axis=1) + 0.5 * identity
    total = step / step.sum(axis=-1, keepdims=True) @ total
  return total


def sensitivity(variant: Attention, params: Params, q: Any, k: Any, v: Any, call: Call) -> Float[Array, "B N T S"]:
  """Frobenius norms of ∂out_t/∂v_s, or of ∂out_t/∂x_s where the variant reads no values: a map for every variant.

  Args:
    variant: the variant to look at.
    params: its arrays.
    q: queries `B T N H`, or None where `projections` has no q; likewise k and v.
    k: keys `B S K H`.
    v: values `B S K V`.
    call: mask, positions, bias and the rest, as in any call.

  Returns:
    Norms at these inputs, at least 0: local and without sign, where `weights` is exact. N is 1 for an output without
    heads.
  """
  source: Any = call.x if v is None else v

  def out(example: Array, b: Array) -> Array:
    """The output of example b alone, its source replaced by `example`."""
    replaced = source.at[b].set(example)
    changed = call._replace(x=replaced) if v is None else call
    return variant.with_aux(params, q, k, v if v is None else replaced, changed).out[b]

  jacobians = jax.lax.map(lambda b: jax.jacrev(out)(source[b], b), jnp.arange(len(source)))
  if v is None and jacobians.ndim == 5:  # B T D S D: an output without heads
    return jnp.sqrt(jnp.einsum("btdse->bts", jacobians**2))[:, None]
  axes = "btnvse->bnts" if v is None else "btnvske->bnts"
  return jnp.sqrt(jnp.einsum(axes, jacobians**2))


def _convolves(variant: Attention) -> bool:
  """Whether some head has a convolution before its mechanism."""
  if isinstance(variant, HeadMixture):
    return any(_convolves(part) for _, part in variant.parts)
  return isinstance(variant, Composed) and variant.conv is not None
