"""Synthesizer: weights that come from the query's own token, or from positions alone, and never from a pair of tokens.

Tay et al. 2021, https://arxiv.org/abs/2005.00743, section 3.

    out_i = Σ_j softmax_j(l_ij + b_ij) v_j
    dense: l_i = relu(x_i W₁ + b₁) W₂ + b₂     random: l = R     factorized random: l = R₁ R₂ᵀ

One set of parameters for each head; W₂ has a column for each of max_len positions, R a row and a column. Time O(T·S),
memory O(S) for each block of queries beside what the keys' columns take; decoding state O(S). Honours every mask and a
bias; refuses grouped heads and cross-attention. A key beyond max_len gives NaN, or is refused where lengths tell.
"""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims, logits_dtype
from attention_lab.attention.engines.chunked import add_bias, attend_in_blocks, dots
from attention_lab.attention.families import softmax

LAST = {"dense": "bias2", "random": "logits", "factorized": "columns"}  # of each kind, the table that tells max_len


@dataclasses.dataclass(frozen=True)
class Synthesizer(Attention, at_least_one=("hidden", "rank")):
  projections: ClassVar[str] = "vo"
  resizable: ClassVar[tuple[str, ...]] = ("hidden", "rank")

  kind: Literal["dense", "random", "factorized"] = "dense"
  hidden: int = 32  # width of the dense kind's hidden layer
  rank: int = 8  # rank of the factorized kind's logits

  def __post_init__(self):
    super().__post_init__()
    if self.kind not in LAST:
      raise ValueError(f"kind={self.kind!r} must be one of {', '.join(LAST)}")
    for name, kind in (("hidden", "dense"), ("rank", "factorized")):
      if self.kind != kind and getattr(self, name) != getattr(Synthesizer, name):
        raise ValueError(f"{name}={getattr(self, name)} has no effect with kind='{self.kind}': leave it out")

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, cross=False, supports_gqa=False, encodes_positions=True)

  def init(self, key, dims: Dims):
    N, L = dims.heads, dims.max_len
    first, second = jax.random.split(key)
    if self.kind == "random":
      return {"per_head": {"logits": jax.random.normal(key, (N, L, L))}}
    if self.kind == "factorized":
      rows, columns = (jax.random.normal(k, (N, L, self.rank)) * self.rank**-0.25 for k in (first, second))
      return {"per_head": {"rows": rows, "columns": columns}}
    return {
      "per_head": {
        "kernel1": jax.random.normal(first, (N, dims.model, self.hidden)) * dims.model**-0.5,
        "bias1": jnp.zeros((N, self.hidden)),
        "kernel2": jax.random.normal(second, (N, self.hidden, L)) * self.hidden**-0.5,
        "bias2": jnp.zeros((N, L)),
      }
    }

  def attend(self, params, q, k, v, call: Call):
    tables, S = params["per_head"], v.shape[1]
    longest = tables[LAST[self.kind]].shape[1]
    if call.positions.known and longest < S:
      raise ValueError(f"Synthesizer has logits for {longest} positions and was given {S} tokens: raise max_len")
    i, j = call.positions.queries(S), call.positions.keys(S)
    q, k = getattr(self, f"_{self.kind}")(tables, i, j, call.x)
    q, k = (jnp.broadcast_to(array, (len(v), *array.shape[1:])) for array in (q, k))

    def equation(block):
      i, j = block.i[:, None, :, None], block.j[:, None, None, :]
      logits = dots(block)
      if self.kind == "random":
        logits += tables["logits"][block.per_head[:, :, None, None], _clip(i, longest), _clip(j, longest)]
      known = (j < longest) if self.kind == "dense" else (i < longest) & (j < longest)
      return softmax.average(add_bias(jnp.where(known, logits, jnp.nan), block, block.readable), block)

    return attend_in_blocks(equation, q, k, v, call, per_head=jnp.arange(v.shape[2]))

  def _dense(self, tables, i, j, x):
    """Queries, the hidden layer and a one; and keys, the column of W₂ and the entry of b₂ for each."""
    if x is None:
      raise ValueError("Synthesizer reads the layer's input: pass x, of shape B T D")
    x = x.astype(logits_dtype(x))
    kernel1, bias1, kernel2, bias2 = (tables[name].astype(x.dtype) for name in ("kernel1", "bias1", "kernel2", "bias2"))
    hidden = jax.nn.relu(jnp.einsum("btd,ndr->btnr", x, kernel1) + bias1[None, None])
    columns = jnp.concatenate([jnp.swapaxes(kernel2, 1, 2), bias2[:, :, None]], axis=-1)
    return jnp.concatenate([hidden, jnp.ones_like(hidden[..., :1])], axis=-1), _rows(columns, j)

  def _factorized(self, tables, i, j, x):
    return _rows(tables["rows"], i), _rows(tables["columns"], j)

  def _random(self, tables, i, j, x):
    """Queries and keys of zeros, which carry the lengths."""
    return tuple(jnp.zeros((1, array.shape[1], len(tables["logits"]), 1)) for array in (i, j))


def _rows(table, positions):
  """The rows `B T N R` of a table `N L R` at positions `B T`."""
  return jnp.moveaxis(table[:, _clip(positions, table.shape[1])], 0, 2)


def _clip(positions, length):
  return jnp.clip(positions, 0, length - 1)
