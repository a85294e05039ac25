"""No leak: what may not be read is replaced by other values of several magnitudes, and nothing may move.

A Jacobian alone is blind to selection: top-k over the whole sequence has a zero Jacobian and still leaks.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.attention.mask import Mask
from attention_lab.certify import random_calls
from attention_lab.certify.equality import readable_pairs
from attention_lab.certify.finding import NOT_RUN, Refuted, require, same
from attention_lab.certify.under_test import Inputs, Shape, VariantUnderTest

MAGNITUDES = (0.3, 10.0, 1e3)  # standard deviations of the values put in place of a token
LEAK_TOLERANCE = 2e-6  # largest movement of what must not move, relative to the output
LENGTH = 7  # tokens
DRAWS = 12  # random instances until a receptive field is seen whole
GROUPS = ((4, 1), (4, 2), (6, 3), (8, 2))  # query heads and key heads
# Constraints that hide a key from a query.
PAIRWISE = ("causal", "window", "prefix", "kv_valid", "segments", "explicit")


def honours(constraint: str) -> Callable[[VariantUnderTest], str]:
  """The proof that no query reads a key which the constraint hides, and that exact attention reads all others."""

  def proof(subject: VariantUnderTest) -> str:
    require(constraint in subject.claims.masks, f"refused: {subject.name} does not list '{constraint}'")
    names = (constraint, "causal") if constraint == "prefix" else (constraint,)
    return _examine(subject, names, subject.draws)

  return proof


def together(subject: VariantUnderTest) -> str:
  """All constraints at once hide what any of them hides."""
  require(len(subject.claims.masks & set(PAIRWISE)) > 1, "honours fewer than two patterns")
  return _examine(subject, PAIRWISE, 2 * subject.draws)


def _examine(subject: VariantUnderTest, names: tuple[str, ...], draws: int) -> str:
  """Refutes where a hidden key moves a query, or where exact attention does not read one that it may."""
  shape, pairs = subject.shape(B=1, T=LENGTH, S=LENGTH), 0
  for seed in range(draws):
    call = random_calls.call(subject, shape, names, seed)
    if call.mask.kv_valid is not None and seed % 2:  # padding on the left
      call = call._replace(mask=dataclasses.replace(call.mask, kv_valid=call.mask.kv_valid[:, ::-1]))
    if call.mask.kv_valid is not None and not subject.claims.per_query:  # its other queries may be read as well
      call = call._replace(mask=call.mask & Mask(q_valid=call.mask.kv_valid))
    readable = readable_pairs(call, shape)[0].any(axis=0)
    for magnitude in MAGNITUDES:
      moved = influence(subject, shape, call, seed, magnitude)
      leaks = np.argwhere((moved > LEAK_TOLERANCE) & ~readable & ~np.eye(LENGTH, dtype=bool))
      if len(leaks):
        t, s = leaks[0]
        token = f"token {s}, which '{'+'.join(names)}' hides,"
        detail = f"query {t} moves by {moved[t, s]:.1e} when {token} is replaced by values of size {magnitude:g}"
        raise Refuted(detail, shape=shape, seed=seed, position=f"query {t}, key {s}")
      pairs += int((~readable).sum())
    if subject.claims.exactness == "exact":
      _require_read(subject, shape, call, seed, readable)
  return f"{pairs} hidden pairs at sizes {', '.join(f'{m:g}' for m in MAGNITUDES)}"


def require_all_read(subject: VariantUnderTest) -> None:
  """Refutes where a query of a call without a mask does not read a key; then it is no softmax over all of them."""
  shape, call = subject.shape(B=1, T=LENGTH, S=LENGTH), Call(subject.mask())
  _require_read(subject, shape, call, 0, readable_pairs(call, shape)[0].any(axis=0))


def _require_read(subject: VariantUnderTest, shape: Shape, call: Call, seed: int, readable: np.ndarray) -> None:
  """Refutes where replacing a readable key moves nothing, be it large, very large, or of the other sign."""
  blind = readable
  for magnitude in (10.0, -1e3, 1e3):  # under sharp weights a key is seen only where its logit is the largest
    blind = blind & ~(influence(subject, shape, call, seed, magnitude) > LEAK_TOLERANCE)
    if not blind.any():
      return
  t, s = np.argwhere(blind)[0]
  raise Refuted(
    f"query {t} does not read key {s}, which it may: not softmax over all readable keys",
    shape=shape,
    seed=seed,
    position=f"query {t}, key {s}",
  )


def influence(subject: VariantUnderTest, shape: Shape, call: Call, seed: int, magnitude: float) -> np.ndarray:
  """`T S`: how far each output row moves when token s (its q, k, v and x) is replaced, in one batch of S + 1 copies."""
  inputs, other = subject.inputs(shape, seed), subject.inputs(shape, seed + 1000, scale=magnitude)
  T = shape.T
  which = np.arange(T + 1)[:, None] == np.arange(T)

  def replaced(array, new):
    return None if array is None else np.where(which.reshape(T + 1, T, *[1] * (array.ndim - 2)), new, array)

  copies = Inputs(*(replaced(array, new) for array, new in zip(inputs, other, strict=True)))
  out = subject.run(copies, shape, call)
  base = out[T:]
  moved = np.abs(out[:T] - base) / max(1.0, float(np.max(np.abs(base))))
  moved = np.nan_to_num(moved, nan=np.inf)
  return moved.reshape(T, T, -1).max(axis=-1).T


def field(subject: VariantUnderTest) -> str:
  """The receptive field that is measured, over several draws, is the one that `pattern` declares."""
  shape, call = subject.shape(B=1, T=LENGTH, S=LENGTH), Call(subject.mask())
  params = subject.params(shape.dims())
  i, j = (jnp.asarray(positions) for positions in (np.arange(LENGTH)[:, None], np.arange(LENGTH)[None]))
  declared: Any = np.asarray(subject.variant.pattern(params, i, j))
  if declared.ndim > 2:
    declared = declared.reshape(-1, LENGTH, LENGTH).any(axis=0)
  declared = (declared & readable_pairs(call, shape)[0].any(axis=0)) | np.eye(LENGTH, dtype=bool)
  measured = np.eye(LENGTH, dtype=bool)
  for seed in range(DRAWS):
    if np.array_equal(measured, declared):
      break
    for magnitude in MAGNITUDES:
      measured |= influence(subject, shape, call, seed, magnitude) > LEAK_TOLERANCE
  wrong = np.argwhere(measured != declared)
  if len(wrong):
    t, s = wrong[0]
    verb = "reads" if measured[t, s] else "never reads"
    detail = f"query {t} {verb} key {s}, and `pattern` declares that it {'may' if declared[t, s] else 'may not'}"
    raise Refuted(detail, shape=shape, position=f"query {t}, key {s}")
  return f"{int(measured.sum())} of {measured.size} pairs, measured and declared"


def biases(subject: VariantUnderTest) -> str:
  """A bias moves the output; where attention is exact, one of −10⁹ hides a key as an explicit mask does."""
  claims, shape = subject.claims, subject.shape(B=1, T=LENGTH, S=LENGTH)
  require(claims.bias, "refuses a bias")
  exact = claims.exactness == "exact" and not claims.mixes_heads and "explicit" in claims.masks
  for seed in range(subject.draws):
    rng, inputs = np.random.default_rng(seed), subject.inputs(shape, seed)
    readable = random_calls.pattern(rng, shape) | np.eye(LENGTH, dtype=bool)
    bias = jnp.asarray(np.where(readable, 0.0, -1e9), jnp.float32)
    biased = subject.run(inputs, shape, Call(subject.mask(), bias=bias))
    if not np.any(np.abs(biased - subject.run(inputs, shape, Call(subject.mask()))) > LEAK_TOLERANCE):
      raise Refuted("a bias of −10⁹ at many pairs changes nothing", shape=shape, seed=seed)
    if exact:
      hidden = subject.run(inputs, shape, Call(subject.mask(Mask(explicit=jnp.asarray(readable)))))
      same(biased, hidden, "a bias of −10⁹ against an explicit mask", shape=shape, seed=seed)
  return f"{subject.draws} draws" + (", as an explicit mask" if exact else "")


def examples(subject: VariantUnderTest) -> str:
  """No example of a batch depends on another."""
  cube = subject.shape(B=4, T=4, S=4, N=4, K=4, H=4, V=4)  # where swapped axes pass unseen
  call = Call(subject.mask())
  for seed, shape in itertools.product(range(subject.draws), (subject.shape(), cube)):
    inputs = subject.inputs(shape, seed)
    before = subject.run(inputs, shape, call)
    for magnitude in MAGNITUDES:
      other = subject.inputs(shape, seed + 1000, scale=magnitude)
      mixed = Inputs(
        *(None if a is None else np.concatenate([a[:1], b[1:]]) for a, b in zip(inputs, other, strict=True))
      )
      after = subject.run(mixed, shape, call)
      same(
        after[:1],
        before[:1],
        "another example of the batch was replaced",
        tolerance=LEAK_TOLERANCE,
        shape=shape,
        seed=seed,
      )
  return f"{2 * subject.draws * len(MAGNITUDES)} replacements"


def queries(subject: VariantUnderTest) -> str:
  """A row depends on its own query alone: the other rows' q (and, in cross-attention, x) are replaced."""
  require(subject.claims.per_query, "rows depend on the other queries")
  projects_both = {"q", "k"} <= set(subject.variant.projections)
  require(subject.claims.cross or projects_both, "has no queries apart from its keys")
  shape = subject.shape(T=5, S=6, K=2, cross=True) if subject.claims.cross else subject.shape()
  for seed in range(subject.draws):
    inputs = subject.inputs(shape, seed)
    before = subject.run(inputs, shape, Call(subject.mask()))
    other = subject.inputs(shape, seed + 1000, scale=10.0)
    q, x = (
      None if a is None else np.concatenate([a[:, :1], b[:, 1:]], axis=1)
      for a, b in ((inputs.q, other.q), (inputs.x, other.x))
    )
    after = subject.run(inputs._replace(q=q, x=x if shape.cross else inputs.x), shape, Call(subject.mask()))
    same(
      after[:, :1], before[:, :1], "the other queries were replaced", tolerance=LEAK_TOLERANCE, shape=shape, seed=seed
    )
  return f"{subject.draws} replacements"


def heads(subject: VariantUnderTest) -> str:
  """A head reads its own query head and key head and no other."""
  require(not subject.claims.mixes_heads, "heads read one another")
  shape = subject.shape(K=2)
  group = shape.N // shape.K
  call = Call(subject.mask(Mask()))
  for seed in range(subject.draws):
    inputs, other = subject.inputs(shape, seed), subject.inputs(shape, seed + 1000, scale=10.0)
    before = subject.run(inputs, shape, call)
    mixed = [
      None if a is None else np.concatenate([b[:, :, :n], a[:, :, n:]], axis=2)
      for a, b, n in zip(inputs[:3], other[:3], (group, 1, 1), strict=True)
    ]
    after = subject.run(inputs._replace(q=mixed[0], k=mixed[1], v=mixed[2]), shape, call)
    same(
      after[:, :, group:],
      before[:, :, group:],
      "the first key head and its queries were replaced",
      tolerance=LEAK_TOLERANCE,
      shape=shape,
      seed=seed,
    )
  return f"{subject.draws} replacements"


def groups(subject: VariantUnderTest) -> str:
  """Query head n reads key head n // (N // K): grouped heads equal key heads repeated in blocks."""
  require(subject.claims.supports_gqa, "needs as many key heads as query heads")
  looked_at = []
  for N, K in GROUPS[1:3] if subject.quick else GROUPS:
    shape = subject.shape(N=N, K=K)
    if shape.K != K:  # a mixture shares its heads out to its parts
      continue
    call = random_calls.call(subject, shape, ("explicit", "bias"), seed=N)
    inputs = subject.inputs(shape)
    repeated = [None if array is None else np.repeat(array, N // K, axis=2) for array in inputs[1:3]]
    full = subject.run(inputs._replace(k=repeated[0], v=repeated[1]), shape, call)
    same(subject.run(inputs, shape, call), full, f"{K} key heads repeated in blocks for {N}", shape=shape, seed=0)
    looked_at.append(f"{N} heads on {K}")
  require(bool(looked_at), "takes none of the numbers of heads", NOT_RUN)
  return ", ".join(looked_at)


PROOFS = {
  **{f"honours {name}": honours(name) for name in PAIRWISE},
  "honours all constraints together": together,
  "honours bias": biases,
  "receptive field is as declared": field,
  "examples are independent": examples,
  "queries are independent": queries,
  "heads are independent": heads,
  "groups of heads are blocks": groups,
}
