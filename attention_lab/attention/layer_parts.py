"""What papers put around a mechanism, between the projections of a layer: the parts of `attention.composed`.

    conv       causal depthwise convolution over tokens of q, k and v, each channel with its own kernel, then an
               activation: Mamba-2, DeltaNet and Gated DeltaNet (https://arxiv.org/abs/2412.06464, section 3.4)
    qk_norm    queries and keys of root mean square 1 with learned gains (https://arxiv.org/abs/2302.05442, section 2),
               or of length 1
    nope       no position code: `positions=auto` adds none to the layer
    skip       + D_n v_t, the value of the token itself, one learned number a head: Mamba-2
    norm       the output of root mean square 1 with learned gains, a head at a time or over all of them
    gate       ⊙ act(x_t W), x the input of the layer at the query: RetNet, GLA, and with a sigmoid
               https://arxiv.org/abs/2505.06708

The first three stand before the mechanism in a spec, the others behind it, in the order in which they act. Numbers
are float32 inside, or wider where an input is wider. Kernels of `conv` start uniform in ±1/√width, as a convolution of
one input channel does in the authors' code; gains and D start as 1; W as N(0, 1/D).
"""

import abc
import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attention_lab.attention.base import Dims, Params, local_heads, logits_dtype
from attention_lab.attention.families.qk_transforms import l2_normalize, rms_norm

_ACTIVATIONS = {"silu": jax.nn.silu, "sigmoid": jax.nn.sigmoid, "none": lambda x: x}


@dataclasses.dataclass(frozen=True)
class Part:
  """One part of a layer, before the mechanism if it is no `OutputPart`."""

  def init(self, key: PRNGKeyArray, dims: Dims, letters: str) -> Params:
    """The part's parameters; letters: the projections that the mechanism reads."""
    del key, dims, letters
    return {}


class OutputPart(Part):
  """A part behind the mechanism."""

  @abc.abstractmethod
  def __call__(self, params: Params, out: Array, x: Any, v: Any) -> Float[Array, "B T N V"]:
    """The output changed.

    Args:
      params: the part's parameters.
      out: the output so far, `B T N V`.
      x: the layer's input at the queries, `B T D`, or None.
      v: the values that the mechanism read, `B S K V`; zero where a token may not read itself.
    """


@dataclasses.dataclass(frozen=True)
class Conv(Part):
  """Causal depthwise convolution of q, k and v over tokens: y_t = act(Σ_s w_s a_{t−s}), 0 ≤ s < width."""

  width: int = 4  # tokens that one output reads, its own among them
  activation: Literal["silu", "none"] = "silu"

  def __post_init__(self):
    if self.width < 1:
      raise ValueError(f"conv: width={self.width} must be at least 1 token")

  def init(self, key: PRNGKeyArray, dims: Dims, letters: str) -> Params:
    sizes = {"q": (dims.heads, dims.head), "k": (dims.kv_heads, dims.head), "v": (dims.kv_heads, dims.value)}
    bound = self.width**-0.5
    keys = dict(zip("qkv", jax.random.split(key, 3), strict=True))
    return {
      letter: jax.random.uniform(keys[letter], (*sizes[letter], self.width), minval=-bound, maxval=bound)
      for letter in "qkv"
      if letter in letters
    }

  def __call__(
    self,
    kernel: Float[Array, "G C W"],
    tokens: Float[Array, "B T K C"],
    tail: Float[Array, "B U K C"],
    runs: Int[Array, "#B T"] | None,
    hidden: Bool[Array, "#B T"] | None,
  ) -> Float[Array, "B T K C"]:
    """The convolved tokens.

    Args:
      kernel: a weight for each channel and distance, 0 first; its G heads are those of the layer, of which `tokens` has
        some, or some repeated.
      tokens: one projection of the new tokens.
      tail: the U = width − 1 tokens before them; zeros where there are none.
      runs: a number that changes where a segment ends; tokens of another run, and the tail, are not read.
      hidden: True where a token counts as zero for those after it.

    Returns:
      One output for each token.
    """
    dtype, T = logits_dtype(tokens), tokens.shape[1]
    weights = local_heads(kernel, tokens.shape[2], axis=0).astype(dtype)
    seen = tokens if hidden is None else jnp.where(hidden[:, :, None, None], 0.0, tokens)
    line = jnp.concatenate([tail.astype(tokens.dtype), seen], axis=1).astype(dtype)
    out = tokens.astype(dtype) * weights[None, None, :, :, 0]
    for s in range(1, self.width):
      before = line[:, self.width - 1 - s : self.width - 1 - s + T]
      if runs is not None:
        same = jnp.pad(runs[:, s:] == runs[:, : max(T - s, 0)], ((0, 0), (min(s, T), 0)))
        before = jnp.where(same[:, :, None, None], before, 0.0)
      out += before * weights[None, None, :, :, s]
    return _ACTIVATIONS[self.activation](out).astype(tokens.dtype)

  def empty_tail(self, batch: int, dims: Dims, letters: str, dtype: Any) -> dict[str, Array]:
    """The tail before the first token."""
    sizes = {"q": (dims.heads, dims.head), "k": (dims.kv_heads, dims.head), "v": (dims.kv_heads, dims.value)}
    return {name: jnp.zeros((batch, self.width - 1, *sizes[name]), dtype) for name in "qkv" if name in letters}

  def next_tail(self, tail: Array, tokens: Array, lengths: Int[Array, "B"] | None) -> Float[Array, "B U K C"]:
    """The last width − 1 real tokens of `tail` and `tokens`, of which `lengths` are real."""
    line = jnp.concatenate([tail, tokens.astype(tail.dtype)], axis=1)
    if lengths is None:
      return line[:, line.shape[1] - (self.width - 1) :]
    picked = lengths[:, None] + jnp.arange(self.width - 1)[None]
    return jnp.take_along_axis(line, picked[:, :, None, None], axis=1)


@dataclasses.dataclass(frozen=True)
class QkNorm(Part):
  """Queries and keys, each brought to one size along the width of a head."""

  kind: Literal["rms", "l2"] = "rms"  # root mean square 1 and a learned gain a channel; length 1 without gains

  def init(self, key: PRNGKeyArray, dims: Dims, letters: str) -> Params:
    return {letter: jnp.ones(dims.head) for letter in "qk" if letter in letters and self.kind == "rms"}

  def __call__(self, gain: Any, x: Float[Array, "B T N H"]) -> Float[Array, "B T N H"]:
    """Queries or keys normalised; gain: of each channel, None for length 1."""
    return l2_normalize(x) if gain is None else _scaled_rms(x, gain[None, None, None])


@dataclasses.dataclass(frozen=True)
class Nope(Part):
  """No position code is added to this layer by `positions=auto`."""


@dataclasses.dataclass(frozen=True)
class Skip(OutputPart):
  """Adds the token's own value to the output, times one learned number a head."""

  def init(self, key: PRNGKeyArray, dims: Dims, letters: str) -> Params:
    return {"scale": jnp.ones(dims.heads)}

  def __call__(self, params: Params, out: Array, x: Any, v: Float[Array, "B T K V"]) -> Float[Array, "B T N V"]:
    """The output with v, zero where a token may not read itself, added to it."""
    scale = local_heads(params["scale"], out.shape[2], axis=0).astype(out.dtype)
    return out + scale[None, None, :, None] * jnp.repeat(v.astype(out.dtype), out.shape[2] // v.shape[2], axis=2)


@dataclasses.dataclass(frozen=True)
class Norm(OutputPart):
  """The output of root mean square 1, with a learned gain a channel."""

  over: Literal["head", "layer"] = "head"  # each head alone, with gains that heads share; or all heads of the layer

  def init(self, key: PRNGKeyArray, dims: Dims, letters: str) -> Params:
    return {"gain": jnp.ones(dims.value if self.over == "head" else (dims.heads, dims.value))}

  def __call__(self, params: Params, out: Array, x: Any, v: Any) -> Float[Array, "B T N V"]:
    """The output normalised."""
    if self.over == "head":
      return _scaled_rms(out, params["gain"][None, None, None])
    flat = rms_norm(out.reshape(*out.shape[:2], -1))
    return flat.reshape(out.shape) * params["gain"].astype(out.dtype)[None, None]


@dataclasses.dataclass(frozen=True)
class Gate(OutputPart):
  """The output times an activation of a linear map of the layer's input."""

  activation: Literal["silu", "sigmoid"] = "silu"
  per: Literal["channel", "head"] = "channel"  # one gate for each channel of the output, or for each head

  def init(self, key: PRNGKeyArray, dims: Dims, letters: str) -> Params:
    width = dims.value if self.per == "channel" else 1
    return {"kernel": jax.random.normal(key, (dims.model, dims.heads, width)) * dims.model**-0.5}

  def __call__(self, params: Params, out: Array, x: Any, v: Any) -> Float[Array, "B T N V"]:
    """The output gated by x, `B T D`."""
    if x is None:
      raise ValueError("gate reads the layer's input: pass x, of shape B T D")
    kernel = local_heads(params["kernel"], out.shape[2], axis=1).astype(out.dtype)
    return out * _ACTIVATIONS[self.activation](jnp.tensordot(x.astype(out.dtype), kernel, axes=1))


PARTS: dict[str, type[Part]] = {
  "conv": Conv,
  "gate": Gate,
  "nope": Nope,
  "norm": Norm,
  "qk_norm": QkNorm,
  "skip": Skip,
}  # name in a spec -> part


def _scaled_rms(x: Array, gain: Array) -> Array:
  wide = x.astype(logits_dtype(x))
  return (rms_norm(wide) * gain.astype(wide.dtype)).astype(x.dtype)
