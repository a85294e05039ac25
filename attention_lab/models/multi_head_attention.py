"""Multi-head attention: a variant between the projections that it names."""

import dataclasses
from typing import Any

from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention import sharded
from attention_lab.attention.base import Attention, AttentionOutput, Call, Dims, Unsupported
from attention_lab.attention.head_mixture import composed_heads, with_rotation
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.positions import Positions
from attention_lab.models.config_checks import FLAG
from attention_lab.models.functional import Undecayed
from attention_lab.models.layers import Linear, named_key
from attention_lab.models.position_encodings import RelativeBias
from attention_lab.models.rope import Rotation


class MultiHeadAttention(nnx.Module):
  """A variant between the projections that it names; it is called through `attention.sharded` only.

  Projections: query D→N·H, key D→K·H, value D→K·V, out N·V→D. A variant without out gives back `B T D`, or `B T N V`
  with N·V = D.
  rotation: turns queries and keys first, or behind the convolutions and norms of a variant that has such.
  bias: is added to the logits.
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
    if rotation is not None and composed_heads(variant):
      variant, rotation = with_rotation(variant, rotation), None
    self.variant, self.dims, self.rotation, self.mesh = variant, dims, rotation, mesh
    self.bias2d = bias
    letters = variant.projections
    if "q" in letters:
      self.query = Linear((dims.model,), (dims.heads, dims.head), key=named_key(key, "query"))
    if "k" in letters:
      self.key = Linear((dims.model,), (dims.kv_heads, dims.head), key=named_key(key, "key"))
    if "v" in letters:
      self.value = Linear((dims.model,), (dims.kv_heads, dims.value), key=named_key(key, "value"))
    if "o" in letters:
      self.out = Linear((dims.heads, dims.value), (dims.model,), key=named_key(key, "out"), gain=gain)
    self.params = _parameters(variant.init(named_key(key, "own"), dims), variant.undecayed)

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

  def _project(self, x: Array, positions: Positions, y: Array | None = None) -> tuple[Any, Any, Any]:
    """Queries, keys and values, each None if the variant does without it; queries and keys are rotated."""
    letters, source = self.variant.projections, x if y is None else y
    q = self.query(x) if "q" in letters else None
    k = self.key(source) if "k" in letters else None
    v = self.value(source) if "v" in letters else None
    if self.rotation is None or q is None or k is None:
      return q, k, v
    key_positions = positions if y is None else dataclasses.replace(positions, q=positions.k)
    return self.rotation(q, positions), self.rotation(k, key_positions), v

  def _merge(self, out: Array) -> Array:
    return self.out(out) if "o" in self.variant.projections else out.reshape(*out.shape[:2], self.dims.model)


def _parameters(tree: dict[str, Any], undecayed: frozenset[str], folder: str = "") -> nnx.Dict:
  """A nested dict of arrays, which lies in `folder`, as parameters; those at the paths `undecayed` are not decayed."""
  parameters: dict[str, Any] = {}
  for name, leaf in tree.items():
    path = folder + name
    if isinstance(leaf, dict):
      parameters[name] = _parameters(leaf, undecayed, f"{path}/")
    else:
      parameters[name] = Undecayed(leaf) if path in undecayed else nnx.Param(leaf)
  return nnx.Dict(parameters)


def _arrays(tree: nnx.Dict) -> dict[str, Any]:
  """The nested dict of arrays of `_parameters`."""
  return {name: _arrays(leaf) if isinstance(leaf, nnx.Dict) else leaf[...] for name, leaf in tree.items()}
