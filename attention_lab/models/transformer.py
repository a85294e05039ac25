"""The stack of layers that every model shares."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention.base import AttentionOutput
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions
from attention_lab.config import ModelConfig
from attention_lab.models import config_checks, rng
from attention_lab.models.block import Block
from attention_lab.models.layers import MultiHeadAttention, Output, drop
from attention_lab.models.norms import norm
from attention_lab.models.position_encodings import Codes
from attention_lab.models.positions import check_widths, inside, resolve
from attention_lab.models.relative_bias import Bias2d, RelativeBias
from attention_lab.models.remat import recomputed
from attention_lab.models.rope import Rotation

State = dict[
  str, Any
]  # {"length": int32 [B], "layers": {"0": the variant's state, …}}; every leaf has B as leading axis


class Transformer(nnx.Module):
  """L blocks between position codes and a last norm, which post-norm blocks do without: `B T D` to `B T D`.

  Maps that write to the residual stream start 1/√(2L) as large as others (Radford et al. 2019, section 2.3). With
  `config.shared_layers` one block is applied L times (ALBERT, Lan et al. 2020). `config.remat`: what layers keep for
  their gradients (Chen et al. 2016). grid: rows and columns of the tokens, if they have any; extra: how many come
  before it. embedding_norm: with a norm behind the codes, as in BERT.
  """

  def __init__(
    self,
    config: ModelConfig,
    max_len: int,
    *,
    key: PRNGKeyArray,
    grid: tuple[int, int] | None = None,
    extra: int = 0,
    embedding_norm: bool = False,
    mesh: Mesh | None = None,
  ):
    dims, variants = config_checks.dims(config, max_len), config_checks.variants(config)
    self.variants, self.dims, self.dropout, self.dtype = variants, dims, config.dropout, config_checks.dtype(config)
    self.kept = config_checks.remat(config)
    self.positions = resolve(config.positions, variants, grid is not None)
    check_widths(self.positions, dims)
    self.codes = Codes(self.positions, max_len, dims.model, key=rng.child(key, "codes"))
    if embedding_norm:
      self.embedding_norm = norm(config.norm, dims.model)
    gain = (2 * config.layers) ** -0.5
    blocks = []
    for i, variant in enumerate(variants[:1] if config.shared_layers else variants):
      own = rng.child(rng.child(key, "layers"), str(i))
      bias = None
      if grid is not None and inside(self.positions, variant, Bias2d):
        bias = RelativeBias(dims.heads, grid, extra, key=rng.child(own, "bias2d"))
      rotation, inner = inside(self.positions, variant, Rotation), rng.child(own, "attention")
      attention = MultiHeadAttention(variant, dims, key=inner, rotation=rotation, bias=bias, gain=gain, mesh=mesh)
      blocks.append(Block(attention, config, key=own, gain=gain))
    self.layers = nnx.List(blocks)
    if config.norm_place == "pre":
      self.norm = norm(config.norm, dims.model)

  def __call__(
    self, x: Float[Array, "B T D"], *, mask: Mask, positions: Positions = Positions(), key: PRNGKeyArray | None = None
  ) -> Output:
    """The hidden states in place of logits, losses summed over layers, statistics of each."""
    x = drop(self._coded(x, positions), self.dropout, rng.child(key, "embedding_dropout"))
    losses: dict[str, Array] = {}
    stats: dict[str, Array] = {}
    for i in range(len(self.variants)):
      x, own, measured = self._attended(i, x, mask=mask, positions=positions, key=rng.child(key, f"layer_{i}"))
      losses |= {name: losses[name] + value if name in losses else value for name, value in own.items()}
      stats |= {f"layer_{i}/{name}": value for name, value in measured.items()}
    return Output(self._normed(x), losses, stats)

  def init_state(self, batch: int) -> State:
    """The state before the first token of `batch` sequences."""
    states = [variant.init_state(batch, self.dims, self.dtype) for variant in self.variants]
    return {"length": jnp.zeros((batch,), jnp.int32), "layers": {str(i): state for i, state in enumerate(states)}}

  def extend(
    self, x: Float[Array, "B T D"], state: State, lengths: Int[Array, "B"] | None = None
  ) -> tuple[State, Float[Array, "B T D"]]:
    """The T tokens that follow those in `state`; `lengths` of them are real, the others padding on the right."""
    B, T = x.shape[:2]
    count = jnp.full((B,), T, jnp.int32) if lengths is None else lengths
    step = jnp.arange(T, dtype=jnp.int32)[None]
    positions = state["length"][:, None] + jnp.where(step < count[:, None], step, 0)
    x = self._coded(x, Positions(q=positions))
    layers = {}
    for i in range(len(self.variants)):
      layers[str(i)], x = self._layer(i).extend(x, state["layers"][str(i)], positions, lengths)
    return {"length": state["length"] + count, "layers": layers}, self._normed(x)

  def _coded(self, x: Array, positions: Positions) -> Array:
    """What enters the first layer."""
    x = self.codes(x, positions)
    return self.embedding_norm(x) if hasattr(self, "embedding_norm") else x

  def _normed(self, x: Array) -> Array:
    """What leaves the last layer."""
    return self.norm(x) if hasattr(self, "norm") else x

  def _attended(self, i: int, x: Array, **call: Any) -> AttentionOutput:
    """Layer i on x, with the parts that the remat policy does not keep computed again backwards."""
    if self.kept is None:
      return self._layer(i)(x, **call)
    return recomputed(self._layer(i), self.kept, x, call)

  def _layer(self, i: int) -> Block:
    return self.layers[i % len(self.layers)]
