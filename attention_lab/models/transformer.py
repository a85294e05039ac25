"""The stack of layers that every model shares."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention.base import AttentionOutput
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions
from attention_lab.config import ModelConfig
from attention_lab.models import config_checks
from attention_lab.models.layers import Output, dropout, mlp, named_key, norm
from attention_lab.models.multi_head_attention import MultiHeadAttention
from attention_lab.models.position_encodings import Bias2d, EmbeddingEncoding, RelativeBias
from attention_lab.models.position_specs import check_widths, layer_encoding, resolve
from attention_lab.models.rope import Rotation

State = dict[
  str, Any
]  # {"length": int32 [B], "layers": {"0": the variant's state, …}}; every leaf has B as leading axis


class Block(nnx.Module):
  """Pre-norm: x + attention(norm(x)), then x + mlp(norm(x)). Post-norm: norm(x + attention(x)), then norm(x + mlp(x)).

  Post-norm is Vaswani et al. 2017, pre-norm Xiong et al. 2020 (https://arxiv.org/abs/2002.04745). With dropout on both
  branches.
  """

  def __init__(self, attention: MultiHeadAttention, config: ModelConfig, *, key: PRNGKeyArray, gain: float = 1.0):
    width = attention.dims.model
    self.dropout, self.post = config.dropout, config.norm_place == "post"
    self.attention_norm = norm(config.norm, width)
    self.attention = attention
    self.mlp_norm = norm(config.norm, width)
    hidden = config.mlp_width or 4 * config.width
    self.mlp = mlp(config.mlp, width, hidden, key=named_key(key, "mlp"), gain=gain)

  def __call__(
    self, x: Float[Array, "B T D"], *, mask: Mask, positions: Positions = Positions(), key: PRNGKeyArray | None = None
  ) -> AttentionOutput:
    """The layer's output `B T D`, with the variant's losses and statistics."""
    inputs = x if self.post else self.attention_norm(x)
    attended = self.attention(inputs, mask=mask, positions=positions, key=named_key(key, "attention"))
    x = x + dropout(attended.out, self.dropout, named_key(key, "attention_dropout"))
    return attended._replace(out=self._rest(x, named_key(key, "mlp_dropout")))

  def extend(
    self, x: Float[Array, "B T D"], state: Any, positions: Int[Array, "B T"], lengths: Int[Array, "B"] | None
  ) -> tuple[Any, Float[Array, "B T D"]]:
    """As a call on the T tokens that follow those in `state`."""
    state, out = self.attention.extend(x if self.post else self.attention_norm(x), state, positions, lengths)
    return state, self._rest(x + out, None)

  def _rest(self, x: Array, key: PRNGKeyArray | None) -> Array:
    """The MLP and the norms after the residual sum of attention."""
    if self.post:
      x = self.attention_norm(x)
      return self.mlp_norm(x + dropout(self.mlp(x), self.dropout, key))
    return x + dropout(self.mlp(self.mlp_norm(x)), self.dropout, key)


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
    self.remat_policy = config_checks.remat(config)
    self.positions = resolve(config.positions, variants, grid is not None)
    check_widths(self.positions, dims)
    self.codes = EmbeddingEncoding(self.positions, max_len, dims.model, key=named_key(key, "codes"))
    if embedding_norm:
      self.embedding_norm = norm(config.norm, dims.model)
    gain = (2 * config.layers) ** -0.5
    blocks = []
    for i, variant in enumerate(variants[:1] if config.shared_layers else variants):
      layer_key = named_key(named_key(key, "layers"), str(i))
      bias = None
      if grid is not None and layer_encoding(self.positions, variant, Bias2d):
        bias = RelativeBias(dims.heads, grid, extra, key=named_key(layer_key, "bias2d"))
      rotation, attention_key = layer_encoding(self.positions, variant, Rotation), named_key(layer_key, "attention")
      attention = MultiHeadAttention(
        variant, dims, key=attention_key, rotation=rotation, bias=bias, gain=gain, mesh=mesh
      )
      blocks.append(Block(attention, config, key=layer_key, gain=gain))
    self.layers = nnx.List(blocks)
    if config.norm_place == "pre":
      self.norm = norm(config.norm, dims.model)

  def __call__(
    self, x: Float[Array, "B T D"], *, mask: Mask, positions: Positions = Positions(), key: PRNGKeyArray | None = None
  ) -> Output:
    """The hidden states in place of logits, losses summed over layers, statistics of each."""
    x = dropout(self._embed(x, positions), self.dropout, named_key(key, "embedding_dropout"))
    losses: dict[str, Array] = {}
    stats: dict[str, Array] = {}
    for i in range(len(self.variants)):
      x, layer_losses, measured = self._apply_layer(
        i, x, mask=mask, positions=positions, key=named_key(key, f"layer_{i}")
      )
      losses |= {name: losses[name] + value if name in losses else value for name, value in layer_losses.items()}
      stats |= {f"layer_{i}/{name}": value for name, value in measured.items()}
    return Output(self._final_norm(x), losses, stats)

  def init_state(self, batch: int) -> State:
    """The state before the first token of `batch` sequences."""
    blocks = [self.layers[0]] * len(self.variants) if len(self.layers) == 1 else self.layers
    states = [block.attention.variant.init_state(batch, self.dims, self.dtype) for block in blocks]
    return {"length": jnp.zeros((batch,), jnp.int32), "layers": {str(i): state for i, state in enumerate(states)}}

  def extend(
    self, x: Float[Array, "B T D"], state: State, lengths: Int[Array, "B"] | None = None
  ) -> tuple[State, Float[Array, "B T D"]]:
    """The T tokens that follow those in `state`; `lengths` of them are real, the others padding on the right."""
    B, T = x.shape[:2]
    count = jnp.full((B,), T, jnp.int32) if lengths is None else lengths
    step = jnp.arange(T, dtype=jnp.int32)[None]
    positions = state["length"][:, None] + jnp.where(step < count[:, None], step, 0)
    x = self._embed(x, Positions(q=positions))
    layers = {}
    for i in range(len(self.variants)):
      layers[str(i)], x = self._layer(i).extend(x, state["layers"][str(i)], positions, lengths)
    return {"length": state["length"] + count, "layers": layers}, self._final_norm(x)

  def _embed(self, x: Array, positions: Positions) -> Array:
    """The input of the first layer."""
    x = self.codes(x, positions)
    return self.embedding_norm(x) if hasattr(self, "embedding_norm") else x

  def _final_norm(self, x: Array) -> Array:
    """The output of the last layer."""
    return self.norm(x) if hasattr(self, "norm") else x

  def _apply_layer(self, i: int, x: Array, **call: Any) -> AttentionOutput:
    """Layer i on x, with the parts that the remat policy does not keep computed again backwards."""
    if self.remat_policy is None:
      return self._layer(i)(x, **call)
    return rematerialized(self._layer(i), self.remat_policy, x, call)

  def _layer(self, i: int) -> Block:
    return self.layers[i % len(self.layers)]


def rematerialized(
  layer: nnx.Module, policy: Callable[..., Any], x: Float[Array, "B T D"], call: dict[str, Any]
) -> AttentionOutput:
  """`layer(x, **call)` with little kept for its gradients, the rest computed again backwards (Chen et al. 2016).

  Kept are its parameters, x, and what the policy of `jax.checkpoint` says. A random key in `call` gives the same bits
  again. In reverse mode only, and without gradients to `call`.

  To the compiler the second computation looks like the first one, with which it would merge it, and so keep everything.
  JAX's guard against that, an optimization barrier, holds on accelerators only: the CPU compiler removes it before it
  looks for equal expressions. There the second computation starts from values to which zero times an element of the
  incoming gradient is added. No compiler may leave that out, for the element might not be finite, and it cannot start
  before the gradient is there.
  """
  graph, params = nnx.split(layer)

  def apply(params: Any, x: Array, call: dict[str, Any]) -> AttentionOutput:
    return nnx.merge(graph, params)(x, **call)

  def forward(params: Any, x: Array, call: dict[str, Any]) -> tuple[AttentionOutput, Any]:
    out, pullback = jax.vjp(jax.checkpoint(lambda params, x: apply(params, x, call), policy=policy), params, x)
    parameters = {id(leaf) for leaf in jax.tree.leaves(params)}
    unchanged = jax.tree.map(lambda leaf: leaf if id(leaf) in parameters else None, pullback)
    return out, (unchanged, jax.tree.map(lambda leaf: None if id(leaf) in parameters else leaf, pullback))

  def backward(residuals: Any, gradient: AttentionOutput) -> Any:
    unchanged, inputs = residuals
    inputs = jax.tree.map(lambda leaf: _after_gradient(leaf, gradient.out), inputs)
    pullback = jax.tree.map(lambda a, b: b if a is None else a, unchanged, inputs, is_leaf=lambda leaf: leaf is None)
    return *pullback(gradient), None

  rule = jax.custom_vjp(apply)
  rule.defvjp(forward, backward)
  return rule(params, x, call)


def _after_gradient(leaf: Array, gradient: Array) -> Array:
  """`leaf`, which on a CPU is known only when the gradient is."""
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    return leaf
  first = gradient[0, 0, 0].astype(leaf.dtype)
  return leaf + jax.lax.platform_dependent(first, cpu=lambda element: 0 * element, default=jnp.zeros_like)
