"""Convolutions, and the text CNN: windows of 3, 4 and 5 words, each feature's maximum over time.

Kim 2014 (https://arxiv.org/abs/1408.5882, section 2).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from attention_lab.models import config_checks
from attention_lab.models.baselines import check
from attention_lab.models.classifier import ClassifierConfig, TextClassifier
from attention_lab.models.layers import Output, dropout, named_key

WINDOWS = (3, 4, 5)  # tokens that a feature sees, `config.width` features each


class Convolution(nnx.Module):
  """A window of any number of axes over channels-last input; the kernel starts as N(0, gain² / fan-in), a bias as 0.

  padding: the zeros before and after each axis; None: as many as make the output ⌈size / stride⌉ long. It is one matrix
  product of all windows, and not XLA's convolution, which on a CPU loses its fast form inside a loop: the gradient of a
  residual network, one seed after another, took 7 s that way and takes 0.3 s in this.
  """

  def __init__(
    self,
    window: tuple[int, ...],
    inputs: int,
    outputs: int,
    *,
    key: PRNGKeyArray,
    stride: int = 1,
    padding: tuple[tuple[int, int], ...] | None = None,
    gain: float = 1.0,
    bias: bool = True,
  ):
    self.stride, self.padding = stride, padding
    std = gain * (math.prod(window) * inputs) ** -0.5
    self.kernel = nnx.Param(std * jax.random.normal(named_key(key, "kernel"), (*window, inputs, outputs)))
    self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

  def __call__(self, x: Float[Array, "B *space I"]) -> Float[Array, "B *places O"]:
    """The output has the dtype of x."""
    kernel = self.kernel[...].astype(x.dtype)
    seen = self._windows(x)
    y = (seen.reshape(-1, seen.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])).reshape(*seen.shape[:-1], -1)
    if self.bias is None:
      return y
    return y + self.bias[...].astype(x.dtype).reshape((1,) * (y.ndim - 1) + (-1,))

  def _windows(self, x: Array) -> Array:
    """All that each place sees, as channels: the last axis of the window fastest, then the channels of x."""
    for axis in reversed(range(1, x.ndim - 1)):
      size, length = self.kernel.shape[axis - 1], x.shape[axis]
      if self.padding is None:
        missing = max((-(-length // self.stride) - 1) * self.stride + size - length, 0)
        edges = missing // 2, missing - missing // 2
      else:
        edges = self.padding[axis - 1]
      padded = jnp.pad(x, [edges if other == axis else (0, 0) for other in range(x.ndim)])
      reach = (padded.shape[axis] - size) // self.stride * self.stride + 1
      shifted = [jax.lax.slice_in_dim(padded, at, at + reach, self.stride, axis) for at in range(size)]
      x = jnp.concatenate(shifted, axis=-1)
    return x


def largest(x: Float[Array, "B S C"]) -> Float[Array, "B C"]:
  """The maximum over S, whose gradient goes to the first place that has it.

  `jnp.max` finds the place again backwards, by equality with the maximum; where XLA has fused x into that, it may be
  computed anew with another rounding, equal nothing, and make the gradient 0/0.
  """
  first = jnp.argmax(jax.lax.stop_gradient(x), axis=1, keepdims=True)
  return jnp.sum(jnp.where(jax.lax.broadcasted_iota(first.dtype, x.shape, 1) == first, x, jnp.zeros_like(x)), axis=1)


class TextCnn(TextClassifier):
  """Logits over C classes from 3·D features, each the largest over all windows that begin at a valid token.

  Of the config it reads what every baseline does. Windows may run past the end of the text, where vectors are 0, so
  that texts shorter than a window have one too.
  """

  def build(self, config: ClassifierConfig, *, key: PRNGKeyArray, mesh: Mesh | None) -> int:
    del mesh
    check(config, "cnn", {"types"})
    width, self.dtype = config.width, config_checks.dtype(config)
    self.dropout = config.dropout
    windows_key = named_key(key, "windows")
    self.windows = nnx.Dict(
      {
        str(size): Convolution((size,), width, width, key=named_key(windows_key, str(size)), padding=((0, size - 1),))
        for size in WINDOWS
      }
    )
    return len(WINDOWS) * width

  def pooled(self, x: Array, valid: Array | None, key: PRNGKeyArray | None) -> Output:
    if valid is not None:
      x = jnp.where(valid[:, :, None], x, jnp.zeros_like(x))
    features = jnp.concatenate([jax.nn.relu(self.windows[str(size)](x)) for size in WINDOWS], axis=2)
    if valid is not None:
      features = jnp.where(valid[:, :, None], features, jnp.zeros_like(features))  # no smaller than any, after the ReLU
    return Output(dropout(largest(features), self.dropout, named_key(key, "dropout")), {}, {})
