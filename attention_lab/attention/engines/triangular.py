"""Unit lower triangular systems, solved by matrix products."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def solve(lower: Float[Array, "B K C C"], right: Float[Array, "B K C V"]) -> Float[Array, "B K C V"]:
  """Solves u + lower u = right for a strictly lower triangular matrix; derivatives are those of the equation."""
  inverse = _inverse(jax.lax.stop_gradient(lower))
  return jax.lax.custom_linear_solve(
    lambda u: u + lower @ u,
    right,
    solve=lambda _, b: jnp.matmul(inverse, b, precision="highest"),
    transpose_solve=lambda _, b: jnp.matmul(jnp.swapaxes(inverse, -1, -2), b, precision="highest"),
  )


def _inverse(lower: Float[Array, "B K C C"]) -> Float[Array, "B K C C"]:
  """(1 + lower)⁻¹ from blocks on the diagonal, two at a time: [[A, 0], [L, D]]⁻¹ = [[A⁻¹, 0], [−D⁻¹LA⁻¹, D⁻¹]].

  No power of `lower` is formed. The entries of every block lie in −1 … 1, for each step of the rule is a contraction.
  """
  B, K, C = lower.shape[:3]
  size, full = 1, 2 ** math.ceil(math.log2(C))
  lower = jnp.pad(lower, ((0, 0), (0, 0), (0, full - C), (0, full - C)))
  inverse = jnp.ones((B, K, full, 1, 1), lower.dtype)
  while size < full:
    pairs = lower.reshape(B, K, full // (2 * size), 2, size, full // (2 * size), 2, size)[:, :, :, 1, :, :, 0]
    corner = jnp.einsum("bkipiq->bkipq", pairs)
    first, second = inverse[:, :, ::2], inverse[:, :, 1::2]
    corner = -jnp.matmul(second, jnp.matmul(corner, first, precision="highest"), precision="highest")
    top, bottom = [first, jnp.zeros_like(first)], [corner, second]
    inverse = jnp.concatenate([jnp.concatenate(row, axis=-1) for row in (top, bottom)], axis=-2)
    size *= 2
  return inverse[:, :, 0, :C, :C]
