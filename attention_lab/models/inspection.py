"""What the layers of a bound model do on a few examples: the largest logit and the entropy of the map of each.

A watched variant stands in for the variant of each attention layer, so the program that is looked at is the program
that runs, its queries and keys after rotation included.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from attention_lab.attention import attention_maps
from attention_lab.attention.base import Attention, AttentionOutput, Call, Claims, Params, Unsupported
from attention_lab.models.functional import Functional
from attention_lab.models.layers import Output
from attention_lab.models.multi_head_attention import MultiHeadAttention

LARGEST_LOGIT, ENTROPY = "largest_logit", "entropy"
LENGTH = 128  # tokens of an example that are inspected: a map costs T² and, by the probe, T / V calls


def inspect(model: Functional, params: Params, forward: Callable[[Any], Output]) -> dict[str, Float[Array, ""]]:
  """`{"layer_0/largest_logit": …, "layer_0/entropy": …}` of the call `forward(module)`, over all its examples.

  largest_logit: max |q·k|·s over readable pairs, where the variant projects queries and keys; s is its field `scale`,
  else 1/√H; what a variant does to them beyond that (norms, features, biases, caps) is left out. entropy: nats, the
  mean over heads and over rows that read something, of the weights by `probe.weights`; absent for a variant that is not
  affine in its values.
  """
  module = model.bind(params)
  for _, layer in nnx.iter_graph(module):
    if isinstance(layer, MultiHeadAttention):
      layer.variant, layer.mesh = _Watched(layer.variant), None  # a mesh would average what is the largest of all
  stats = forward(module).stats
  return {name: value for name, value in stats.items() if name.rpartition("/")[2] in (LARGEST_LOGIT, ENTROPY)}


def shortened(batch: Mapping[str, Array], length: int = LENGTH) -> dict[str, Array]:
  """The batch with its tokens or sentences (arrays of two or three axes) cut to `length`, and `length` [B] likewise."""
  cut = {name: array[:, :length] if array.ndim in (2, 3) else array for name, array in batch.items()}
  return cut | ({"length": jnp.minimum(batch["length"], length)} if "length" in batch else {})


@dataclasses.dataclass(frozen=True)
class _Watched(Attention):
  """The variant `inner`, with what is seen of it among its statistics."""

  inner: Attention

  @property
  def projections(self) -> str:  # type: ignore[override]
    return self.inner.projections

  def claims(self) -> Claims:
    return self.inner.claims()

  def attend(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> Any:
    return self.inner.attend(params, q, k, v, call)

  def with_aux(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> AttentionOutput:
    attended = self.inner.with_aux(params, q, k, v, call)
    stats = {} if q is None or k is None else {LARGEST_LOGIT: _largest_logit(self.inner, q, k, call)}
    try:
      maps = attention_maps.weights(self.inner, params, q, k, v, call)
    except Unsupported:
      return attended._replace(stats=attended.stats | stats)
    rows = jnp.any(maps != 0, axis=-1)
    mean = jnp.sum(attention_maps.entropy(maps) * rows) / jnp.maximum(jnp.sum(rows), 1)
    return attended._replace(stats=attended.stats | stats | {ENTROPY: mean})


def _largest_logit(variant: Attention, q: Array, k: Array, call: Call) -> Float[Array, ""]:
  scale = getattr(variant, "scale", None)
  scale = q.shape[-1] ** -0.5 if scale is None else scale
  k = jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)
  logits = jnp.abs(jnp.einsum("BTNH,BSNH->BNTS", q, k, preferred_element_type=jnp.float32)) * scale
  readable = call.mask.dense(q.shape[1], k.shape[1], call.positions)
  return jnp.max(jnp.where(jnp.broadcast_to(readable, logits.shape), logits, 0.0))
