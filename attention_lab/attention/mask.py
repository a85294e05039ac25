"""Which keys a query may read: one composable object that holds constraints and is their conjunction.

The law, tested on all pairs: `(a & b).dense(…) == a.dense(…) & b.dense(…)`. What cannot satisfy it is refused.
Constraints compare positions (`Positions`), never array indices.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attention_lab.attention.positions import Positions

NAMES = ("causal", "window", "prefix", "q_valid", "kv_valid", "segments", "explicit")  # of the constraints


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("prefix", "q_valid", "kv_valid", "q_segments", "k_segments", "explicit"),
  meta_fields=("causal", "window"),
)
@dataclasses.dataclass(frozen=True)
class Mask:
  """A conjunction of constraints on which key, at position j, a query at position i may read.

  Segments that a variant honours without honouring explicit masks must be contiguous runs, as packing makes them.

  Raises:
    ValueError: a window below 1, a prefix without causal, or segments of queries or keys alone.
  """

  causal: bool = False  # j ≤ i
  window: int | tuple[int, int] | None = None  # (left, right): −right < i − j < left; W stands for (W, W)
  prefix: Int[Array, "#B"] | None = None  # relaxes causal alone: j ≤ i or j < prefix
  q_valid: Bool[Array, "#B T"] | None = None  # False marks padding
  kv_valid: Bool[Array, "#B S"] | None = None  # False marks padding
  q_segments: Int[Array, "#B T"] | None = None  # a pair is readable where its two numbers are equal
  k_segments: Int[Array, "#B S"] | None = None
  explicit: Bool[Array, "#B #N #T #S"] | None = None  # any other pattern, True where readable

  def __post_init__(self):
    if self.window is not None:
      window = (self.window, self.window) if isinstance(self.window, int) else tuple(self.window)
      if len(window) != 2 or min(window) < 1:
        raise ValueError(f"window={self.window} must be at least 1: it counts the query's own position")
      object.__setattr__(self, "window", window)  # one form, so that equal windows compare equal
    if self.prefix is not None and not self.causal:
      raise ValueError("prefix relaxes a causal mask, and this mask is not causal: set causal=True")
    if (self.q_segments is None) != (self.k_segments is None):
      raise ValueError("segments need both q_segments and k_segments; pass the same array twice in self-attention")

  @property
  def span(self) -> tuple[int, int] | None:
    """The window as (left, right), in positions; None without one."""
    return self.window if not isinstance(self.window, int) else (self.window, self.window)

  def names(self) -> frozenset[str]:
    """The names of the constraints that are present, out of `NAMES`."""
    values = {name: getattr(self, name) for name in NAMES if name != "segments"} | {"segments": self.q_segments}
    return frozenset(name for name, value in values.items() if value is not None and value is not False)

  def __and__(self, other: "Mask") -> "Mask":
    """The mask in which a pair is readable if it is readable in both.

    Raises:
      ValueError: both hold segments, which no one mask can stand for.
    """
    if self.q_segments is not None and other.q_segments is not None:
      raise ValueError("two segmentations cannot be one mask: give one of them as explicit=")
    prefix = None
    if self.prefix is not None and other.prefix is not None:
      prefix = jnp.minimum(self.prefix, other.prefix)
    elif not (self.causal and other.causal):
      prefix = self.prefix if self.prefix is not None else other.prefix
    segments = self if self.q_segments is not None else other
    return Mask(
      causal=self.causal or other.causal,
      window=_narrower(self.span, other.span),
      prefix=prefix,
      q_valid=_both(self.q_valid, other.q_valid),
      kv_valid=_both(self.kv_valid, other.kv_valid),
      q_segments=segments.q_segments,
      k_segments=segments.k_segments,
      explicit=_both(self.explicit, other.explicit),
    )

  def dense(self, T: int, S: int, positions: Positions = Positions()) -> Bool[Array, "#B #N T S"]:
    """The whole readable matrix; engines ask for blocks of it instead.

    Args:
      T: number of queries.
      S: number of keys.
      positions: theirs.

    Returns:
      True where the query may read the key.
    """
    readable = self.pattern(positions.queries(T), positions.keys(S))
    rows = [
      (self.q_valid, (slice(None), None, slice(None), None)),
      (self.kv_valid, (slice(None), None, None, slice(None))),
    ]
    for valid, index in rows:
      readable = readable if valid is None else readable & valid[index]
    if self.q_segments is not None and self.k_segments is not None:
      readable = readable & (self.q_segments[:, None, :, None] == self.k_segments[:, None, None, :])
    return readable if self.explicit is None else readable & self.explicit

  def pattern(self, i: Int[Array, "#B T"], j: Int[Array, "#B S"]) -> Bool[Array, "#B 1 T S"]:
    """The part that positions alone decide: empty slots, causal with prefix, window.

    Args:
      i: positions of the queries.
      j: positions of the keys; −1 is an empty slot.

    Returns:
      True where these constraints let the query read the key.
    """
    i, j = i[:, None, :, None], j[:, None, None, :]
    readable = jnp.broadcast_to(j >= 0, jnp.broadcast_shapes(i.shape, j.shape))
    if self.causal:
      past = j <= i
      readable &= past if self.prefix is None else past | (j < self.prefix[:, None, None, None])
    if self.span is not None:
      left, right = self.span
      readable &= (i - j < left) & (i - j > -right)
    return readable


def _both(a: Array | None, b: Array | None) -> Array | None:
  return a if b is None else b if a is None else a & b


def _narrower(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
  return a if b is None else b if a is None else (min(a[0], b[0]), min(a[1], b[1]))


FULL = Mask()  # no constraint
CAUSAL = Mask(causal=True)  # the past and the own position
