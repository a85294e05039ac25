"""Cross entropy over a vocabulary, some positions at a time: all B·T·V logits together are never alive.

They and their gradient are the largest arrays of a small language model's training step. Where they are many, one scan
over chunks of positions makes the logits of a chunk, its nats and, if a gradient is wanted, at once the gradients of
the hidden states and of the output map (Hsu et al. 2024, Liger Kernel; Wijmans et al. 2024, Cut Your Losses in
Large-Vocabulary Language Models). Nothing is computed twice: the matrix products are those of the plain form, which few
logits still take, as one product.

Over several devices each has its own examples and, where they divide, its own words; the gradient of the output map is
summed over devices once, after the scan.
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

BATCH, WORDS = ("data", "fsdp"), "tensor"  # the axes of a mesh that split the batch and the vocabulary
LOGITS = 2**21  # logits that a CPU makes at once, 8 MiB; a batch with no more takes the plain form
POSITIONS = (
  256  # positions in a chunk, at least: with fewer, adding up the map's gradient costs as much as its products
)
ACCELERATOR = 8  # both are as many times larger there, where products are faster still than memory


class Head(NamedTuple):
  """The output map of a language model. by_word: the kernel is `V D`, as an embedding table, in place of `D V`."""

  kernel: Float[Array, "_ _"]
  bias: Float[Array, "V"] | None
  by_word: bool
  mesh: Mesh | None = None

  @property
  def words(self) -> int:
    """V, the size of the vocabulary."""
    return self.kernel.shape[0 if self.by_word else 1]

  def logits(self, hidden: Float[Array, "B *T D"]) -> Float[Array, "B *T V"]:
    """One flat matrix product, in float32."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    return _logits(self.by_word, flat, self.kernel.astype(hidden.dtype), self.bias).reshape(*hidden.shape[:-1], -1)


def cross_entropy(logits: Float[Array, "*B V"], targets: Int[Array, "*B"]) -> Float[Array, "*B"]:
  """−log softmax(logits)[target], in nats."""
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - chosen


def nats(
  head: Head, hidden: Float[Array, "B T D"], targets: Int[Array, "B T"], weights: Float[Array, "B T"]
) -> Float[Array, ""]:
  """Σ weight · cross entropy, with gradients to all but the targets, which lie in 0 … V − 1.

  In chunks the gradient of the logits is cast to the dtype of `hidden` before its products, as those of other layers.
  """
  layout = _layout(head, hidden)
  if layout is None:
    return jnp.sum(cross_entropy(head.logits(hidden), targets) * weights)
  return _nats(layout, hidden, head.kernel, head.bias, targets, weights)


def score(
  head: Head, hidden: Float[Array, "B T D"], targets: Int[Array, "B T"], weights: Float[Array, "B T"]
) -> dict[str, Float[Array, ""]]:
  """The sums {"nll": Σ weight · cross entropy, "correct": Σ weight where the target has the largest logit}."""
  layout = _layout(head, hidden)
  if layout is None:
    logits = head.logits(hidden)
    nll, right = cross_entropy(logits, targets), jnp.argmax(logits, axis=-1) == targets
  else:
    nll, right = _mapped(layout, _scores, hidden, head.kernel, head.bias, targets, weights)
  return {"nll": jnp.sum(nll * weights), "correct": jnp.sum(right.astype(jnp.float32) * weights)}


class _Layout(NamedTuple):
  """What is known of a call before its arrays; hashable."""

  positions: int  # in a chunk, on one device
  by_word: bool
  mesh: Mesh | None
  batch: tuple[str, ...] | None  # axes that split the examples
  words: str | None  # axis that splits the vocabulary


def _layout(head: Head, hidden: Array) -> _Layout | None:
  """None if the logits of one device are few enough to be made at once."""
  mesh, (examples, length) = head.mesh, hidden.shape[:2]
  batch = words = None
  vocabulary = head.words
  if mesh is not None and mesh.size > 1:
    parts = math.prod(mesh.shape[name] for name in BATCH)
    batch = None if examples % parts else BATCH
    words = None if vocabulary % mesh.shape[WORDS] else WORDS
    examples, vocabulary = examples // (parts if batch else 1), vocabulary // (mesh.shape[WORDS] if words else 1)
  platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
  larger = 1 if platform == "cpu" else ACCELERATOR
  if examples * length * vocabulary <= LOGITS * larger:
    return None
  chunks = -(-examples * length // max(LOGITS * larger // vocabulary, POSITIONS * larger))
  return _Layout(-(-examples * length // chunks), head.by_word, mesh, batch, words)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _nats(layout: _Layout, hidden: Array, kernel: Array, bias: Any, targets: Array, weights: Array) -> Array:
  return jnp.sum(_mapped(layout, _losses, hidden, kernel, bias, targets, weights) * weights)


def _nats_forward(layout: _Layout, *arrays: Any) -> tuple[Array, Any]:
  nll, gradients = _mapped(layout, _gradients, *arrays)
  return jnp.sum(nll * arrays[-1]), (*gradients, None, nll)


def _nats_backward(_: _Layout, gradients: Any, scale: Array) -> Any:
  return jax.tree.map(lambda gradient: (gradient * scale).astype(gradient.dtype), gradients)


_nats.defvjp(_nats_forward, _nats_backward)


def _mapped(layout: _Layout, local: Callable, hidden: Array, kernel: Array, bias: Any, *rows: Array) -> Any:
  """`local` on the arrays of each device."""
  kernel = kernel.astype(hidden.dtype)
  if layout.mesh is None or layout.mesh.size == 1:
    return local(layout, hidden, kernel, bias, *rows)
  own, words = P(layout.batch), P(layout.words)
  across = words if layout.by_word else P(None, layout.words)
  outs = {_losses: own, _scores: (own, own), _gradients: (own, (own, across, words))}[local]
  specs = (own, across, words, own, own)
  mapped = jax.shard_map(
    functools.partial(local, layout), mesh=layout.mesh, in_specs=specs, out_specs=outs, check_vma=False
  )
  return mapped(hidden, kernel, bias, *rows)


def _losses(layout: _Layout, hidden: Array, kernel: Array, bias: Any, targets: Array, weights: Array) -> Array:
  """Nats `B T`."""

  def body(_: None, chunk: tuple) -> tuple[None, Array]:
    x, own, _ = chunk
    return None, _chunk(layout, x, kernel, bias, own)[1]

  _, nll = jax.lax.scan(body, None, _chunks(layout, hidden, targets, weights))
  return _whole(nll, targets.shape)


def _scores(layout: _Layout, hidden: Array, kernel: Array, bias: Any, targets: Array, weights: Array) -> Any:
  """Nats, and whether the target has the largest logit, both `B T`; of equal logits the first counts, as in argmax."""

  def body(_: None, chunk: tuple) -> tuple[None, tuple[Array, Array]]:
    x, own, _ = chunk
    logits, nll, _ = _chunk(layout, x, kernel, bias, own)
    best = jnp.argmax(logits, axis=-1)
    if layout.words:
      top, first = jnp.max(logits, axis=-1), _first_word(layout, logits)
      largest = top == jax.lax.pmax(top, layout.words)
      best = jax.lax.pmin(jnp.where(largest, best + first, jnp.iinfo(best.dtype).max), layout.words)
    return None, (nll, best == own)

  _, (nll, right) = jax.lax.scan(body, None, _chunks(layout, hidden, targets, weights))
  return _whole(nll, targets.shape), _whole(right, targets.shape)


def _gradients(layout: _Layout, hidden: Array, kernel: Array, bias: Any, targets: Array, weights: Array) -> Any:
  """Nats `B T`, and the gradients of their weighted sum to hidden, kernel and bias, the last two in float32."""

  def body(total: tuple, chunk: tuple) -> tuple[tuple, tuple[Array, Array]]:
    x, own, weight = chunk
    logits, nll, normalizer = _chunk(layout, x, kernel, bias, own)
    hit = jnp.arange(logits.shape[1])[None] == (own - _first_word(layout, logits))[:, None]
    slope = (jnp.exp(logits - normalizer[:, None]) - hit.astype(jnp.float32)) * weight[:, None]
    low = slope.astype(x.dtype)
    left, right = (low, x) if layout.by_word else (x, low)
    own_kernel = jax.lax.dot_general(left, right, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    own_x = jnp.dot(low, kernel if layout.by_word else kernel.T, preferred_element_type=jnp.float32)
    own_x = jax.lax.psum(own_x, layout.words) if layout.words else own_x
    total = total[0] + own_kernel, None if bias is None else total[1] + jnp.sum(slope, axis=0)
    return total, (nll, own_x.astype(x.dtype))

  zeros = jnp.zeros(kernel.shape, jnp.float32), None if bias is None else jnp.zeros(bias.shape, jnp.float32)
  total, (nll, to_hidden) = jax.lax.scan(body, zeros, _chunks(layout, hidden, targets, weights))
  total = jax.lax.psum(total, layout.batch) if layout.batch else total
  return _whole(nll, targets.shape), (_whole(to_hidden, hidden.shape), *total)


def _chunk(layout: _Layout, x: Array, kernel: Array, bias: Any, targets: Array) -> tuple[Array, Array, Array]:
  """Logits of this device's words, nats, and the log of the sum of exponentials over all words."""
  logits = _logits(layout.by_word, x, kernel, bias)
  own = targets - _first_word(layout, logits)
  inside = (own >= 0) & (own < logits.shape[1])
  chosen = jnp.take_along_axis(logits, jnp.where(inside, own, 0)[:, None], axis=1)[:, 0]
  if layout.words is None:
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    return logits, normalizer - chosen, normalizer
  top = jax.lax.pmax(jnp.max(logits, axis=-1), layout.words)
  total = jax.lax.psum(jnp.sum(jnp.exp(logits - top[:, None]), axis=-1), layout.words)
  chosen = jax.lax.psum(jnp.where(inside, chosen, 0.0), layout.words)
  return logits, jnp.log(total) + top - chosen, jnp.log(total) + top


def _first_word(layout: _Layout, logits: Array) -> Any:
  """The number of the first of this device's words."""
  return jax.lax.axis_index(layout.words) * logits.shape[1] if layout.words else 0


def _logits(by_word: bool, x: Array, kernel: Array, bias: Any) -> Array:
  logits = jnp.dot(x, kernel.T if by_word else kernel, preferred_element_type=jnp.float32)
  return logits if bias is None else logits + bias[None]


def _chunks(layout: _Layout, *arrays: Array) -> tuple[Array, ...]:
  """`B T …` as `chunks positions …`, zeros added at the end where the positions do not divide."""
  count = arrays[0].shape[0] * arrays[0].shape[1]
  missing = -count % layout.positions

  def split(array: Array) -> Array:
    flat = array.reshape(count, *array.shape[2:])
    flat = jnp.pad(flat, ((0, missing), *((0, 0) for _ in flat.shape[1:])))
    return flat.reshape(-1, layout.positions, *flat.shape[1:])

  return tuple(map(split, arrays))


def _whole(chunks: Array, shape: tuple[int, ...]) -> Array:
  """The inverse of `_chunks`."""
  return chunks.reshape(-1, *shape[2:])[: shape[0] * shape[1]].reshape(shape)
