"""The parts of a transformer layer. Parameters are float32; computation runs in the dtype that the caller's x has."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention import sharded
from attention_lab.attention.base import Attended, Attention, Call, Dims, Refused
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.positions import Positions
from attention_lab.models import keys
from attention_lab.models.dimensions import FLAG
from attention_lab.models.relative_bias import RelativeBias
from attention_lab.models.rope import Rotation

EPSILON = 1e-6  # added to the variance in a norm


class Linear(nnx.Module):
  """y = x·W + b over the last `len(inputs)` axes of x; W starts as N(0, gain² / fan-in), b as 0."""

  def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...], *, key: PRNGKeyArray, gain: float = 1.0):
    self.inputs, self.outputs = inputs, outputs
    std = gain * _size(inputs) ** -0.5
    self.kernel = nnx.Param(std * jax.random.normal(keys.child(key, "kernel"), (*inputs, *outputs)))
    self.bias = nnx.Param(jnp.zeros(outputs))

  def __call__(self, x: Float[Array, "..."], dtype: Any = None) -> Float[Array, "..."]:
    """One flat matrix product, the cheapest form on CPU. dtype: of the output; None = that of x."""
    dtype = dtype or x.dtype
    lead = x.shape[: x.ndim - len(self.inputs)]
    kernel = self.kernel[...].reshape(_size(self.inputs), -1).astype(x.dtype)
    y = jnp.dot(x.reshape(-1, _size(self.inputs)), kernel, preferred_element_type=dtype)
    return (y + self.bias[...].reshape(1, -1).astype(dtype)).reshape(*lead, *self.outputs)


class LayerNorm(nnx.Module):
  """Zero mean and unit variance over the last axis, then a scale and a bias; in float32."""

  def __init__(self, width: int):
    self.scale = nnx.Param(jnp.ones(width))
    self.bias = nnx.Param(jnp.zeros(width))

  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    centred = x.astype(jnp.float32)
    centred = centred - jnp.mean(centred, axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + EPSILON)
    return (centred * scale * self.scale[...][None, None] + self.bias[...][None, None]).astype(x.dtype)


class Mlp(nnx.Module):
  """Two linear maps with a GELU (tanh form) between them."""

  def __init__(self, width: int, hidden: int, *, key: PRNGKeyArray, gain: float = 1.0):
    self.up = Linear((width,), (hidden,), key=keys.child(key, "up"))
    self.down = Linear((hidden,), (width,), key=keys.child(key, "down"), gain=gain)

  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    return self.down(jax.nn.gelu(self.up(x), approximate=True))


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
        setattr(self, name, Linear((dims.model,), tuple(shape), key=keys.child(key, name)))
    if "o" in variant.projections:
      self.out = Linear((dims.heads, dims.value), (dims.model,), key=keys.child(key, "out"), gain=gain)
    self.own = _parameters(variant.init(keys.child(key, "own"), dims))

  def __call__(
    self, x: Float[Array, "B T D"], *, mask: Mask, positions: Positions = Positions(), key: PRNGKeyArray | None = None
  ) -> Attended:
    """Attends within x; the output of the `Attended` is `B T D`."""
    q, k, v = self._project(x, positions)
    bias = None if self.bias2d is None else self.bias2d(positions, x.shape[1])
    call = Call(mask, positions, bias, x=x, key=key)
    attended = sharded.attend(self.variant, _arrays(self.own), q, k, v, call, mesh=self.mesh)
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
      raise Refused(f"{FLAG}.positions=bias2d needs a grid, which decoding does not have; give rope or learned")
    q, k, v = self._project(x, Positions(q=positions))
    state, out = sharded.extend(
      self.variant, _arrays(self.own), state, q, k, v, x=x, lengths=lengths, mask=mask, mesh=self.mesh
    )
    return state, self._merge(out)

  def _project(self, x: Array, where: Positions) -> tuple[Any, Any, Any]:
    letters = self.variant.projections
    q = self.query(x) if "q" in letters else None
    k = self.key(x) if "k" in letters else None
    v = self.value(x) if "v" in letters else None
    return (q, k, v) if self.rotation is None else (self.rotation(q, where), self.rotation(k, where), v)

  def _merge(self, out: Array) -> Array:
    return self.out(out) if "o" in self.variant.projections else out.reshape(*out.shape[:2], self.dims.model)


class Block(nnx.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)): pre-norm, with dropout on both branches."""

  def __init__(
    self, attention: MultiHeadAttention, hidden: int, *, key: PRNGKeyArray, dropout: float = 0.0, gain: float = 1.0
  ):
    width = attention.dims.model
    self.dropout = dropout
    self.attention_norm = LayerNorm(width)
    self.attention = attention
    self.mlp_norm = LayerNorm(width)
    self.mlp = Mlp(width, hidden, key=keys.child(key, "mlp"), gain=gain)

  def __call__(
    self, x: Float[Array, "B T D"], *, mask: Mask, positions: Positions = Positions(), key: PRNGKeyArray | None = None
  ) -> Attended:
    """The layer's output `B T D`, with the variant's losses and statistics."""
    attended = self.attention(self.attention_norm(x), mask=mask, positions=positions, key=keys.child(key, "attention"))
    x = x + drop(attended.out, self.dropout, keys.child(key, "attention_dropout"))
    x = x + drop(self.mlp(self.mlp_norm(x)), self.dropout, keys.child(key, "mlp_dropout"))
    return attended._replace(out=x)

  def extend(
    self, x: Float[Array, "B T D"], state: Any, positions: Int[Array, "B T"], lengths: Int[Array, "B"] | None
  ) -> tuple[Any, Float[Array, "B T D"]]:
    """As a call on the T tokens that follow those in `state`."""
    state, out = self.attention.extend(self.attention_norm(x), state, positions, lengths)
    x = x + out
    return state, x + self.mlp(self.mlp_norm(x))


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
