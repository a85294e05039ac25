"""Cross entropy over a vocabulary, some positions at a time: all B·T·V logits together are never alive.

They and their gradient are the largest arrays of a small language model's training step. Where they are many, one scan
over chunks of positions makes the logits of a chunk, its nats and, if a gradient is wanted, at once the gradients of
the hidden states and of the output map (Hsu et al. 2024, Liger Kernel; Wijmans et al. 2024, Cut Your Losses in
Large-Vocabulary Language Models). Nothing is computed twice: the matrix products are those of the plain form, which few
logits still take, as one product.

Over several devices each has its own examples and, where they divide, its own part of the vocabulary; the gradient of
the output map is summed over devices once, after the scan.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

BATCH_AXES, VOCAB_AXIS = ("data", "fsdp"), "tensor"  # axes of a mesh that split the batch, and the vocabulary
MAX_LOGITS = 2**21  # largest number of logits that a CPU makes at once, 8 MiB; beyond it they come in chunks
MIN_CHUNK = 256  # least positions in a chunk: with fewer, summing the map's gradient costs as much as its products
ACCELERATOR_SCALE = 8  # factor of both on accelerators, where products are faster still than memory


class Head(NamedTuple):
  """The output map of a language model. vocab_major: the kernel is `V D`, as an embedding table, in place of `D V`."""

  kernel: Float[Array, "_ _"]
  bias: Float[Array, "V"] | None
  vocab_major: bool
  mesh: Mesh | None = None

  @property
  def vocabulary(self) -> int:
    """V, the size of the vocabulary."""
    return self.kernel.shape[0 if self.vocab_major else 1]

  def logits(self, hidden: Float[Array, "B *T D"]) -> Float[Array, "B *T V"]:
    """Logits in float32, by one flat matrix product."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    return _logits(self.vocab_major, flat, self.kernel.astype(hidden.dtype), self.bias).reshape(*hidden.shape[:-1], -1)


def cross_entropy(logits: Float[Array, "*B V"], targets: Int[Array, "*B"]) -> Float[Array, "*B"]:
  """−log softmax(logits)[target], in nats."""
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - chosen


def nll_sum(
  head: Head, hidden: Float[Array, "B T D"], targets: Int[Array, "B T"], weights: Float[Array, "B T"]
) -> Float[Array, ""]:
  """Σ weight · cross entropy, with gradients to all but the targets, which lie in 0 … V − 1.

  In chunks the gradient of the logits is cast to the dtype of `hidden` before its products, as those of other layers.
  """
  layout = _layout(head, hidden)
  if layout is None:
    return jnp.sum(cross_entropy(head.logits(hidden), targets) * weights)
  return _chunked_nll_sum(layout, hidden, head.kernel, head.bias, targets, weights)


def score_sums(
  head: Head, hidden: Float[Array, "B T D"], targets: Int[Array, "B T"], weights: Float[Array, "B T"]
) -> dict[str, Float[Array, ""]]:
  """The sums {"nll": Σ weight · cross entropy, "correct": Σ weight where the target has the largest logit}."""
  layout = _layout(head, hidden)
  if layout is None:
    logits = head.logits(hidden)
    nll, right = cross_entropy(logits, targets), jnp.argmax(logits, axis=-1) == targets
  else:
    nll, right = _over_devices(layout, _scores, hidden, head.kernel, head.bias, targets, weights)
  return {"nll": jnp.sum(nll * weights), "correct": jnp.sum(right.astype(jnp.float32) * weights)}


class _Layout(NamedTuple):
  """How a call is split into chunks and over devices; hashable, known before its arrays."""

  positions: int  # in a chunk, on one device
  vocab_major: bool
  mesh: Mesh | None
  batch_axes: tuple[str, ...] | None  # axes that split the examples
  vocab_axis: str | None  # axis that splits the vocabulary


def _layout(head: Head, hidden: Array) -> _Layout | None:
  """The chunks and axes of a call; None if the logits of one device are few enough to be made at once."""
  mesh, (examples, length) = head.mesh, hidden.shape[:2]
  batch_axes: tuple[str, ...] | None = None
  vocab_axis: str | None = None
  vocabulary = head.vocabulary
  if mesh is not None and mesh.size > 1:
    parts = math.prod(mesh.shape[name] for name in BATCH_AXES)
    splits = mesh.shape[VOCAB_AXIS]
    if examples % parts == 0:
      batch_axes, examples = BATCH_AXES, examples // parts
    if vocabulary % splits == 0:
      vocab_axis, vocabulary = VOCAB_AXIS, vocabulary // splits
  platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
  scale_up = 1 if platform == "cpu" else ACCELERATOR_SCALE
  if examples * length * vocabulary <= MAX_LOGITS * scale_up:
    return None
  chunks = -(-examples * length // max(MAX_LOGITS * scale_up // vocabulary, MIN_CHUNK * scale_up))
  return _Layout(-(-examples * length // chunks), head.vocab_major, mesh, batch_axes, vocab_axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked_nll_sum(layout: _Layout, hidden: Array, kernel: Array, bias: Any, targets: Array, weights: Array) -> Array:
  return jnp.sum(_over_devices(layout, _losses, hidden, kernel, bias, targets, weights) * weights)


def _chunked_nll_sum_forward(layout: _Layout, *arrays: Any) -> tuple[Array, Any]:
  nll, gradients = _over_devices(layout, _gradients, *arrays)
  return jnp.sum(nll * arrays[-1]), (*gradients, None, nll)


def _chunked_nll_sum_backward(_: _Layout, gradients: Any, scale: Array) -> Any:
  return jax.tree.map(lambda gradient: (gradient * scale).astype(gradient.dtype), gradients)


_chunked_nll_sum.defvjp(_chunked_nll_sum_forward, _chunked_nll_sum_backward)


def _over_devices(layout: _Layout, local: Callable, hidden: Array, kernel: Array, bias: Any, *rows: Array) -> Any:
  """The function `local` on the arrays of each device."""
  kernel = kernel.astype(hidden.dtype)
  if layout.mesh is None or layout.mesh.size == 1:
    return local(layout, hidden, kernel, bias, *rows)
  by_example, by_id = P(layout.batch_axes), P(layout.vocab_axis)
  by_kernel = by_id if layout.vocab_major else P(None, layout.vocab_axis)
  outs = {
    _losses: by_example,
    _scores: (by_example, by_example),
    _gradients: (by_example, (by_example, by_kernel, by_id)),
  }[local]
  specs = (by_example, by_kernel, by_id, by_example, by_example)
  mapped = jax.shard_map(
    functools.partial(local, layout), mesh=layout.mesh, in_specs=specs, out_specs=outs, check_vma=False
  )
  return mapped(hidden, kernel, bias, *rows)


def _losses(layout: _Layout, hidden: Array, kernel: Array, bias: Any, targets: Array, weights: Array) -> Array:
  """The cross entropy of each target `B T`, in nats."""

  def body(carry: None, chunk: tuple) -> tuple[None, Array]:
    x, ids = chunk[:2]
    return carry, _chunk(layout, x, kernel, bias, ids)[1]

  _, nll = jax.lax.scan(body, None, _chunks(layout, hidden, targets, weights))
  return _unchunked(nll, targets.shape)


def _scores(layout: _Layout, hidden: Array, kernel: Array, bias: Any, targets: Array, weights: Array) -> Any:
  """Nats, and whether the target has the largest logit, both `B T`; of equal logits the first counts, as in argmax."""

  def body(carry: None, chunk: tuple) -> tuple[None, tuple[Array, Array]]:
    x, ids = chunk[:2]
    logits, nll, _ = _chunk(layout, x, kernel, bias, ids)
    best = jnp.argmax(logits, axis=-1)
    if layout.vocab_axis:
      top, first = jnp.max(logits, axis=-1), _first_id(layout, logits)
      largest = top == jax.lax.pmax(top, layout.vocab_axis)
      best = jax.lax.pmin(jnp.where(largest, best + first, jnp.iinfo(best.dtype).max), layout.vocab_axis)
    return carry, (nll, best == ids)

  _, (nll, right) = jax.lax.scan(body, None, _chunks(layout, hidden, targets, weights))
  return _unchunked(nll, targets.shape), _unchunked(right, targets.shape)


def _gradients(layout: _Layout, hidden: Array, kernel: Array, bias: Any, targets: Array, weights: Array) -> Any:
  """Nats `B T`, and the gradients of their weighted sum to hidden, kernel and bias, the last two in float32."""

  def body(total: tuple, chunk: tuple) -> tuple[tuple, tuple[Array, Array]]:
    x, ids, weight = chunk
    logits, nll, normalizer = _chunk(layout, x, kernel, bias, ids)
    hit = jnp.arange(logits.shape[1])[None] == (ids - _first_id(layout, logits))[:, None]
    slope = (jnp.exp(logits - normalizer[:, None]) - hit.astype(jnp.float32)) * weight[:, None]
    low = slope.astype(x.dtype)
    left, right = (low, x) if layout.vocab_major else (x, low)
    kernel_gradient = jax.lax.dot_general(left, right, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    hidden_gradient = jnp.dot(low, kernel if layout.vocab_major else kernel.T, preferred_element_type=jnp.float32)
    hidden_gradient = jax.lax.psum(hidden_gradient, layout.vocab_axis) if layout.vocab_axis else hidden_gradient
    total = total[0] + kernel_gradient, None if bias is None else total[1] + jnp.sum(slope, axis=0)
    return total, (nll, hidden_gradient.astype(x.dtype))

  zeros = jnp.zeros(kernel.shape, jnp.float32), None if bias is None else jnp.zeros(bias.shape, jnp.float32)
  total, (nll, to_hidden) = jax.lax.scan(body, zeros, _chunks(layout, hidden, targets, weights))
  total = jax.lax.psum(total, layout.batch_axes) if layout.batch_axes else total
  return _unchunked(nll, targets.shape), (_unchunked(to_hidden, hidden.shape), *total)


def _chunk(layout: _Layout, x: Array, kernel: Array, bias: Any, targets: Array) -> tuple[Array, Array, Array]:
  """Logits of this device's part of the vocabulary, nats, and the log of the sum of exponentials over all of it."""
  logits = _logits(layout.vocab_major, x, kernel, bias)
  local = targets - _first_id(layout, logits)
  inside = (local >= 0) & (local < logits.shape[1])
  chosen = jnp.take_along_axis(logits, jnp.where(inside, local, 0)[:, None], axis=1)[:, 0]
  if layout.vocab_axis is None:
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    return logits, normalizer - chosen, normalizer
  top = jax.lax.pmax(jnp.max(logits, axis=-1), layout.vocab_axis)
  total = jax.lax.psum(jnp.sum(jnp.exp(logits - top[:, None]), axis=-1), layout.vocab_axis)
  chosen = jax.lax.psum(jnp.where(inside, chosen, 0.0), layout.vocab_axis)
  return logits, jnp.log(total) + top - chosen, jnp.log(total) + top


def _first_id(layout: _Layout, logits: Array) -> Any:
  """The first token id of this device's part of the vocabulary."""
  return jax.lax.axis_index(layout.vocab_axis) * logits.shape[1] if layout.vocab_axis else 0


def _logits(vocab_major: bool, x: Array, kernel: Array, bias: Any) -> Array:
  logits = jnp.dot(x, kernel.T if vocab_major else kernel, preferred_element_type=jnp.float32)
  return logits if bias is None else logits + bias[None]


def _chunks(layout: _Layout, *arrays: Array) -> tuple[Array, ...]:
  """The arrays `B T …` as `chunks positions …`, zeros added at the end where the positions do not divide."""
  count = arrays[0].shape[0] * arrays[0].shape[1]
  missing = -count % layout.positions

  def split(array: Array) -> Array:
    flat = array.reshape(count, *array.shape[2:])
    flat = jnp.pad(flat, ((0, missing), *((0, 0) for _ in flat.shape[1:])))
    return flat.reshape(-1, layout.positions, *flat.shape[1:])

  return tuple(map(split, arrays))


def _unchunked(chunks: Array, shape: tuple[int, ...]) -> Array:
  """The inverse of `_chunks`."""
  return chunks.reshape(-1, *shape[2:])[: shape[0] * shape[1]].reshape(shape)
