"""The snippets of textbooks that do not do what is said of them, each with the claims that its author would make."""

import jax
import jax.numpy as jnp
from faults import PLAIN, Bite, Dense, frozen, masked

from attention_lab.attention.base import Claims
from attention_lab.attention.mask import Mask

UNMASKED = Claims(cross=False, decode=False, supports_gqa=False)


@frozen
class SelfAttention(Dense):
  """The single-head layer: swaps batch and time, normalises over queries, and runs where B = T = H."""

  def claims(self):
    return UNMASKED

  def attend(self, params, q, k, v, call):
    q, k, v = (jnp.moveaxis(array, 2, 0) for array in (q, k, v))
    logits = q @ jnp.swapaxes(k, 1, 2)
    return jnp.moveaxis(jax.nn.softmax(logits, axis=2) @ v, 0, 2)


@frozen
class OnTheCube(Dense):
  """The same layer by an author who has tried it on one sequence alone: right, but where B = T = H."""

  def claims(self):
    return UNMASKED

  def attend(self, params, q, k, v, call):
    B, T, _, H = q.shape
    return (SelfAttention if B == T == H else Dense).attend(self, params, q, k, v, call)


@frozen
class Triangle(Dense):
  """A padding mask out of a comparison of indices: a triangle, blind to lengths."""

  def attend(self, params, q, k, v, call):
    triangle = None if call.mask.kv_valid is None else jnp.tri(q.shape[1], k.shape[1], dtype=bool)[None, None]
    return super().attend(params, q, k, v, masked(call, kv_valid=None, explicit=triangle))


@frozen
class SplitSequence(Dense):
  """Heads that are pieces of the sequence, each attending within itself."""

  def attend(self, params, q, k, v, call):
    T, S, N = q.shape[1], k.shape[1], q.shape[2]
    pieces = (jnp.arange(T) * N // T)[:, None] == (jnp.arange(S) * N // S)[None]
    return super().attend(params, q, k, v, call._replace(mask=call.mask & Mask(explicit=pieces[None, None])))


@frozen
class OverFeatures(Dense):
  """Softmax over the features of q ⊙ k, times the token's own value."""

  def claims(self):
    return UNMASKED

  def attend(self, params, q, k, v, call):
    shares = jax.nn.softmax(q * k)
    return shares[..., jnp.arange(v.shape[3]) % q.shape[3]] * v


@frozen
class OneTerm(Dense):
  """softmax(q, k) · v of the own key: one term and not the sum."""

  def weights(self, logits, readable):
    return super().weights(logits, readable) * jnp.eye(*logits.shape[2:])[None, None]


@frozen
class LostNumerators(Dense):
  """1 / Σ eˡ for every key: the numerators vanish."""

  def weights(self, logits, readable):
    exponentials = jnp.where(readable, jnp.exp(logits), 0.0)
    return jnp.where(readable, 1.0 / jnp.maximum(exponentials.sum(axis=-1, keepdims=True), 1e-30), 0.0)


@frozen
class PositionAtTheEnd(Dense):
  """Positions added to the output, where they belong to the input."""

  def attend(self, params, q, k, v, call):
    waves = jnp.sin(call.positions.queries(q.shape[1]).astype(jnp.float32))
    return super().attend(params, q, k, v, call) + waves[:, :, None, None]


@frozen
class MeanKnowledge(Dense):
  """Knowledge as the mean of all facts, the same shift for every token."""

  def init(self, key, dims):
    return {"facts": jax.random.normal(key, (8, dims.value))}

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, call) + params["facts"].mean(axis=0)[None, None, None]


@frozen
class ScaledByLength(Dense):
  """Logits over the number of keys, where they belong over √H."""

  def weights(self, logits, readable):
    return super().weights(logits / logits.shape[3], readable)


@frozen
class PerPatch(Dense):
  """The classifier's softmax, taken of each patch's output."""

  def attend(self, params, q, k, v, call):
    return jax.nn.softmax(super().attend(params, q, k, v, call))


@frozen
class Headless(Dense):
  """The wrapper that takes a number of heads and does nothing with it."""

  nhead: int = 8


NOT_ONE, EQUAL, GOLDEN = "rows of the map", "equal values", "the golden table"
CUBE = "B4 T4 S4 N4 K4 H4 V4"
BITES = (
  Bite(SelfAttention(), "examples are independent", "Incompatible types for matmul"),
  Bite(SelfAttention(), "rows of the map sum to 1", "Incompatible types for matmul"),
  Bite(OnTheCube(), "equals its oracle", CUBE, "rows of the map sum to 1", PLAIN),
  Bite(OnTheCube(), "examples are independent", CUBE, "class in the values"),
  Bite(Triangle(), "honours kv_valid", "does not read key", "honours causal"),
  Bite(Triangle(), "padding equals truncation", "padding against truncation", "honours segments"),
  Bite(SplitSequence(), "receptive field is as declared", "never reads key", "golden table"),
  Bite(SplitSequence(), "honours causal", "does not read key", "averages the values"),
  Bite(SplitSequence(), "equals its oracle", "query", "", PLAIN),
  Bite(OverFeatures(), "golden table", GOLDEN, "examples are independent"),
  Bite(OverFeatures(), "averages the values", EQUAL, "class in the values"),
  Bite(OneTerm(), "golden table", GOLDEN),
  Bite(OneTerm(), "rows of the map sum to 1", NOT_ONE, "examples are independent"),
  Bite(LostNumerators(), "golden table", GOLDEN, "padding equals truncation"),
  Bite(LostNumerators(), "rows of the map sum to 1", NOT_ONE, "honours causal"),
  Bite(PositionAtTheEnd(), "class in the values", "is affine", "honours causal"),
  Bite(PositionAtTheEnd(), "averages the values", EQUAL, "extend in any split"),
  Bite(MeanKnowledge(), "class in the values", "is affine", "honours causal"),
  Bite(MeanKnowledge(), "averages the values", EQUAL, "rows of the map sum to 1"),
  Bite(ScaledByLength(), "golden table", GOLDEN, "rows of the map sum to 1"),
  Bite(ScaledByLength(), "padding equals truncation", "padding against truncation", "honours kv_valid"),
  Bite(PerPatch(), "class in the values", "is nonlinear", "honours causal"),
  Bite(PerPatch(), "averages the values", EQUAL),
  Bite(Headless(), "every hyper-parameter acts", "'nhead' is accepted and ignored", "golden table"),
)
