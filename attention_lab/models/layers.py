"""The parts of a transformer layer. Parameters are float32; computation runs in the dtype that the caller's x has."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention import sharded
from attention_lab.attention.base import Attention, AttentionOutput, Call, Dims, Unsupported
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.positions import Positions
from attention_lab.models import rng
from attention_lab.models.config_checks import FLAG
from attention_lab.models.relative_bias import RelativeBias
from attention_lab.models.rope import Rotation


class Linear(nnx.Module):
  """y = x·W + b over the last `len(inputs)` axes of x; W starts as N(0, gain² / fan-in), b as 0."""

  def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...], *, key: PRNGKeyArray, gain: float = 1.0):
    self.inputs, self.outputs = inputs, outputs
    std = gain * _size(inputs) ** -0.5
    self.kernel = nnx.Param(std * jax.random.normal(rng.child(key, "kernel"), (*inputs, *outputs)))
    self.bias = nnx.Param(jnp.zeros(outputs))

  def __call__(self, x: Float[Array, "..."], dtype: Any = None) -> Float[Array, "..."]:
    """One flat matrix product, the cheapest form on CPU. dtype: of the output; None = that of x."""
    dtype = dtype or x.dtype
    lead = x.shape[: x.ndim - len(self.inputs)]
    kernel = self.kernel[...].reshape(_size(self.inputs), -1).astype(x.dtype)
    y = jnp.dot(x.reshape(-1, _size(self.inputs)), kernel, preferred_element_type=dtype)
    return (y + self.bias[...].reshape(1, -1).astype(dtype)).reshape(*lead, *self.outputs)


class MultiHeadAttention(nnx.Module):
  """A variant between the projections that it names; it is called through `attention.sharded` only.

  Projections: query D→N·H, key D→K·H, value D→K·V, out N·V→D. A variant without out gives back `B T D`, or `B T N V`
  with N·V = D.
  rotation: turns queries and keys first. bias: is added to the logits.
  """

  def __init__(
    self,
    variant: Attention,
    dims: Dims,
    *,
    key: PRNGKeyArray,
    rotation: Rotation | None = None,
    bias: RelativeBias | None = None,
    gain: float = 1.0,
    mesh: Mesh | None = None,
  ):
    self.variant, self.dims, self.rotation, self.mesh = variant, dims, rotation, mesh
    self.bias2d = bias
    shapes = {
      "q": ("query", dims.heads, dims.head),
      "k": ("key", dims.kv_heads, dims.head),
      "v": ("value", dims.kv_heads, dims.value),
    }
    for letter, (name, *shape) in shapes.items():
      if letter in variant.projections:
        setattr(self, name, Linear((dims.model,), tuple(shape), key=rng.child(key, name)))
    if "o" in variant.projections:
      self.out = Linear((dims.heads, dims.value), (dims.model,), key=rng.child(key, "out"), gain=gain)
    self.params = _parameters(variant.init(rng.child(key, "own"), dims))

  def __call__(
    self,
    x: Float[Array, "B T D"],
    *,
    mask: Mask,
    positions: Positions = Positions(),
    y: Float[Array, "B S D"] | None = None,
    key: PRNGKeyArray | None = None,
  ) -> AttentionOutput:
    """Attends from x to y, or within x if y is None; the output of the `AttentionOutput` is `B T D`."""
    if y is not None and self.bias2d is not None:
      raise Unsupported(f"{FLAG}.positions=bias2d is for a grid that reads itself; give rope or learned")
    q, k, v = self._project(x, positions, y)
    bias = None if self.bias2d is None else self.bias2d(positions, x.shape[1])
    call = Call(mask, positions, bias, x=x, y=y, key=key)
    attended = sharded.attend(self.variant, _arrays(self.params), q, k, v, call, mesh=self.mesh)
    return attended._replace(out=self._merge(attended.out))

  def extend(
    self,
    x: Float[Array, "B T D"],
    state: Any,
    positions: Int[Array, "B T"],
    lengths: Int[Array, "B"] | None,
    mask: Mask = CAUSAL,
  ) -> tuple[Any, Float[Array, "B T D"]]:
    """Appends T tokens, of which `lengths` are real, at these positions, and attends from them to all so far."""
    if self.bias2d is not None:
      raise Unsupported(f"{FLAG}.positions=bias2d needs a grid, which decoding does not have; give rope or learned")
    q, k, v = self._project(x, Positions(q=positions))
    state, out = sharded.extend(
      self.variant, _arrays(self.params), state, q, k, v, x=x, lengths=lengths, mask=mask, mesh=self.mesh
    )
    return state, self._merge(out)

  def _project(self, x: Array, where: Positions, y: Array | None = None) -> tuple[Any, Any, Any]:
    letters, source = self.variant.projections, x if y is None else y
    q = self.query(x) if "q" in letters else None
    k = self.key(source) if "k" in letters else None
    v = self.value(source) if "v" in letters else None
    if self.rotation is None:
      return q, k, v
    there = where if y is None else dataclasses.replace(where, q=where.k)
    return self.rotation(q, where), self.rotation(k, there), v

  def _merge(self, out: Array) -> Array:
    return self.out(out) if "o" in self.variant.projections else out.reshape(*out.shape[:2], self.dims.model)


class Output(NamedTuple):
  """What a model gives back; losses and statistics are scalars by name."""

  logits: Float[Array, "B *T C"]
  losses: dict[str, Array]  # auxiliary losses of the variants, summed over layers
  stats: dict[str, Array]  # "layer_0/entropy", …


def drop(x: Float[Array, "..."], rate: float, key: PRNGKeyArray | None) -> Float[Array, "..."]:
  """Inverted dropout: zeros with probability `rate`, the rest scaled up; without a key, x."""
  if key is None or rate == 0.0:
    return x
  return jnp.where(jax.random.bernoulli(key, 1.0 - rate, x.shape), x / (1.0 - rate), jnp.zeros_like(x))


def _size(shape: tuple[int, ...]) -> int:
  size = 1
  for length in shape:
    size *= length
  return size


def _parameters(tree: dict[str, Any]) -> nnx.Dict:
  return nnx.Dict(
    {name: _parameters(leaf) if isinstance(leaf, dict) else nnx.Param(leaf) for name, leaf in tree.items()}
  )


def _arrays(tree: nnx.Dict) -> dict[str, Any]:
  return {name: _arrays(leaf) if isinstance(leaf, nnx.Dict) else leaf[...] for name, leaf in tree.items()}
