"""Layers that keep little of what their gradients need, and compute it again backwards (Chen et al. 2016).

`jax.checkpoint` says what is kept. To the compiler the second computation looks like the first one, with which it would
merge it, and so keep everything. JAX's guard against that, an optimization barrier, holds on accelerators only: the
CPU compiler removes it before it looks for equal expressions. There the second computation starts from values to which
zero times an element of the incoming gradient is added. No compiler may leave that out, for the element might not be
finite, and it cannot start before the gradient is there.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from attention_lab.attention.base import AttentionOutput


def recomputed(
  layer: nnx.Module, policy: Callable[..., Any], x: Float[Array, "B T D"], call: dict[str, Any]
) -> AttentionOutput:
  """`layer(x, **call)`; kept of it are its parameters, x, and what the policy of `jax.checkpoint` says.

  A random key in `call` gives the same bits again. In reverse mode only, and without gradients to `call`.
  """
  graph, params = nnx.split(layer)

  def apply(params: Any, x: Array, call: dict[str, Any]) -> AttentionOutput:
    return nnx.merge(graph, params)(x, **call)

  def forward(params: Any, x: Array, call: dict[str, Any]) -> tuple[AttentionOutput, Any]:
    out, pullback = jax.vjp(jax.checkpoint(lambda params, x: apply(params, x, call), policy=policy), params, x)
    own = {id(leaf) for leaf in jax.tree.leaves(params)}
    unchanged = jax.tree.map(lambda leaf: leaf if id(leaf) in own else None, pullback)
    return out, (unchanged, jax.tree.map(lambda leaf: None if id(leaf) in own else leaf, pullback))

  def backward(kept: Any, gradient: AttentionOutput) -> Any:
    unchanged, inputs = kept
    inputs = jax.tree.map(lambda leaf: _guarded(leaf, gradient.out), inputs)
    pullback = jax.tree.map(lambda a, b: b if a is None else a, unchanged, inputs, is_leaf=lambda leaf: leaf is None)
    return *pullback(gradient), None

  rule = jax.custom_vjp(apply)
  rule.defvjp(forward, backward)
  return rule(params, x, call)


def _guarded(leaf: Array, gradient: Array) -> Array:
  """`leaf`, which on a CPU is known only when the gradient is."""
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    return leaf
  first = gradient[0, 0, 0].astype(leaf.dtype)
  return leaf + jax.lax.platform_dependent(first, cpu=lambda one: 0 * one, default=jnp.zeros_like)
