"""Equality with the oracle, a float64 loop written from the paper by someone who has not read the implementation."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.attention.mask import NAMES
from attention_lab.certify import oracle, random_calls
from attention_lab.certify.finding import FORWARD, GRADIENT, NOT_ASKED, NOT_GIVEN, NOT_RUN, Refuted, require, same
from attention_lab.certify.oracle import Example
from attention_lab.certify.under_test import Inputs, Shape, VariantUnderTest

ALL_DEMANDS = (*NAMES, "bias")
# Those under which a query may read later keys.
TWO_WAYS = tuple(name for name in ALL_DEMANDS if name not in ("causal", "window", "prefix"))
STEP = 1e-4  # of the central differences, in float64; a tenth of it where that is a kink's width
# Constraints under which auxiliary losses are compared.
LOSS_CALLS = ((), ("causal",), ("causal", "kv_valid"), ("q_valid", "kv_valid", "bias"))
LOSS_TOLERANCE = 1e-4  # largest relative error of an auxiliary loss
# Fields whose growth makes an approximation better.
GROWING_FIELDS = ("features", "rank", "landmarks", "samples", "hashes", "buckets")
GROWTH = (8, 512)  # two sizes of such a field


@dataclasses.dataclass(frozen=True)
class Cell:
  """One compiled program of the comparison: a shape and the constraints that are present."""

  shape: Shape
  names: tuple[str, ...] = ()
  positions: bool = False
  rows: tuple[int, ...] = ()  # queries to look at, where all of them are too many for a loop


def cells(subject: VariantUnderTest) -> Iterator[Cell]:
  """The pool: odd lengths, grouped heads, T ≠ S both ways, T = 1, the cube, lengths of several blocks."""
  odd, grouped = subject.shape(), subject.shape(B=2, T=7, S=7, K=2, H=4, V=3, room=3)
  cube = subject.shape(B=4, T=4, S=4, K=4, H=4, V=4)
  yield Cell(odd)
  yield Cell(grouped, ALL_DEMANDS, positions=True)
  yield Cell(cube, ("causal",))
  if subject.claims.cross:
    yield Cell(subject.shape(T=3, S=7, K=2, cross=True), TWO_WAYS)
  yield from _long(subject)
  if subject.quick:
    return
  yield Cell(odd, ("causal", "kv_valid", "q_valid", "segments"))
  yield Cell(subject.shape(T=9, S=9, K=1, V=5), ("causal", "prefix", "kv_valid"))
  yield Cell(grouped, ("window", "kv_valid", "segments"))
  yield Cell(grouped, TWO_WAYS, positions=True)
  yield Cell(cube._replace(cross=subject.claims.cross), TWO_WAYS)
  yield Cell(subject.shape(B=1, T=1, S=1), ("kv_valid", "causal"))
  if subject.claims.cross:
    yield Cell(subject.shape(T=7, S=3, K=2, cross=True), ALL_DEMANDS)
    yield Cell(subject.shape(T=1, S=6, cross=True), ("kv_valid",))


def _long(subject: VariantUnderTest) -> Iterator[Cell]:
  """A length at which engines cut into blocks; queries from the first, a middle and the last of them."""
  if not subject.claims.cross or getattr(subject.case, "ALL_ROWS", False):
    return
  shape, rows = subject.shape(B=2, T=300, S=300, N=16, K=8, H=2, V=2), (0, 63, 64, 200, 256, 299)
  yield Cell(shape, ("causal", "kv_valid"), rows=rows)
  if not subject.quick:
    yield Cell(shape, ("kv_valid", "segments", "explicit", "bias"), rows=rows)


def forward(subject: VariantUnderTest) -> str:
  """The output equals the oracle's; combinations that the variant refuses by name are listed."""
  require(subject.case is not None, "no oracle", NOT_GIVEN)
  return compare(subject, cells(subject), subject.draws)


def compare(subject: VariantUnderTest, pool: Iterable[Cell], draws: int) -> str:
  """The comparison with the oracle in each cell of a pool, and what was examined.

  Args:
    subject: the variant under test, with a case.
    pool: shapes and constraints.
    draws: random instances of each cell that has all its rows.

  Raises:
    Refuted: an output differs from the oracle's.
    Undecided: the variant refuses every combination.
  """
  worst, count, refused = 0.0, 0, []
  for cell in pool:
    for seed in range(1 if cell.rows else draws):
      inputs, call, problem = instance(subject, cell, seed)
      if problem:
        refused.append(problem)
        break
      run = subject.optimised if cell.rows or cell.positions else subject.forward
      out = np.asarray(run(subject.params(cell.shape.dims()), inputs, call), np.float32)
      for b in _examples(cell):
        expected = subject.case.oracle(subject.variant, float64_params(subject, cell), example(inputs, call, cell, b))
        rows = out[b][list(cell.rows)] if cell.rows else out[b]
        what = f"under {_listed(call)}, example {b}"
        error = same(rows[None], expected[None], what, tolerance=FORWARD, shape=cell.shape, seed=seed)
        worst, count = max(worst, error), count + 1
  require(count > 0, f"every combination is refused: {'; '.join(refused)}")
  notes = "".join(f"; {reason}" for reason in dict.fromkeys(refused))
  return f"{count} examples, largest error {worst:.0e}{notes}"


def gradient(subject: VariantUnderTest) -> str:
  """Directional derivatives equal central differences of the oracle, one direction for each input and parameter."""
  require(subject.case is not None, "no oracle", NOT_GIVEN)
  require(subject.differentiable, "its gradient cannot be taken", NOT_ASKED)
  stands_in = hasattr(subject.case, "surrogate") or not subject.claims.straight_through
  require(stands_in, "no surrogate in its case: the smooth stand-in whose gradient it has", NOT_GIVEN)
  worst, count = 0.0, 0
  for cell in sorted(map(_few_rows, cells(subject)), key=_plain):
    if subject.quick and count and _plain(cell):
      break
    seed = _readable_seed(subject, cell)
    inputs, call, problem = instance(subject, cell, seed)
    if problem:
      continue
    for step in (STEP, STEP / 10):  # a kink that lies within the first is seldom within the second
      slopes = dict(_slopes(subject, cell, inputs, call, step))
      largest = max((abs(expected) for _, expected in slopes.values()), default=0.0)
      errors = {name: abs(a - b) / max(1.0, abs(b), 0.1 * largest) for name, (a, b) in slopes.items()}
      if all(error <= GRADIENT for error in errors.values()):
        break
    for name, error in errors.items():
      if not error <= GRADIENT:
        slope, expected = slopes[name]
        detail = f"along {name} under {_listed(call)}: slope {slope:.6g} where {expected:.6g} is right"
        raise Refuted(detail, shape=cell.shape, seed=seed, position=name)
      worst, count = max(worst, error), count + 1
  require(count > 0, "every combination is refused, or nothing has a gradient")
  return f"{count} directions, largest error {worst:.0e}"


def losses(subject: VariantUnderTest) -> str:
  """Each loss equals the one that the case computes from the same examples."""
  shape = subject.shape(T=6, S=6)
  inputs, call = subject.inputs(shape), Call(subject.mask())
  program = subject.compiled(subject.losses)
  names = sorted(jax.eval_shape(program, subject.params(shape.dims()), inputs, call))
  require(bool(names), "has no auxiliary loss")
  require(hasattr(subject.case, "losses"), "no losses in its case", NOT_GIVEN)
  count, params = 0, float64_params(subject, Cell(shape))
  for seed, cell in enumerate(Cell(shape, names) for names in LOSS_CALLS):
    inputs, call, problem = instance(subject, cell, seed)
    if problem:
      continue
    values = program(subject.params(shape.dims()), inputs, call)
    examples = [example(inputs, call, cell, b) for b in range(shape.B)]
    expected = subject.case.losses(subject.variant, params, examples)
    if set(values) != set(expected):
      raise Refuted(f"the losses are {', '.join(values)}, not {', '.join(expected)}", shape=shape, seed=seed)
    for name, value in expected.items():
      if not abs(float(values[name]) - value) <= LOSS_TOLERANCE * abs(value):
        detail = f"the loss {name} is {float(values[name]):.6g}, not {value:.6g}, under {cell.names or 'no mask'}"
        raise Refuted(detail, shape=shape, seed=seed)
    count += 1
  require(count > 0, "every combination is refused")
  return f"{', '.join(names)} in {count} calls"


def converges(subject: VariantUnderTest) -> str:
  """With more of what it grows with, the mean error against exact softmax attention is less than half."""
  require(subject.claims.exactness == "approximate", "not claimed to approximate softmax")
  name, steps = getattr(subject.case, "GROWS", None) or _grows(subject)
  require(bool(name), f"none of the fields {', '.join(GROWING_FIELDS)} is there to grow", NOT_RUN)
  errors = []
  for size in steps:
    grown = dataclasses.replace(subject, variant=dataclasses.replace(subject.variant, **{name: size}))
    errors.append(np.mean([_error(grown, seed) for seed in range(8)]))
  if not errors[1] < 0.5 * errors[0]:
    raise Refuted(f"the mean error is {errors[0]:.3g} at {name}={steps[0]} and {errors[1]:.3g} at {steps[1]}")
  return f"mean error {errors[0]:.2g} at {name}={steps[0]}, {errors[1]:.2g} at {steps[1]}"


def instance(subject: VariantUnderTest, cell: Cell, seed: int) -> tuple[Inputs, Call, str]:
  """Inputs and call of one draw, and the refusal where the variant declines the combination by name, else ""."""
  inputs = subject.inputs(cell.shape, seed)
  call = random_calls.call(subject, cell.shape, cell.names, seed, positions=cell.positions)
  refusal = subject.refusal(subject.params(cell.shape.dims()), inputs, call)
  return inputs, call, "" if refusal is None else f"refuses {_listed(call)} at {cell.shape}: {refusal}"


def example(inputs: Inputs, call: Call, cell: Cell, b: int) -> Example:
  """Example `b` in float64; of its queries those at `cell.rows`, if it has any."""
  picked = list(cell.rows) or list(range(cell.shape.T))
  readable, i, j = pairs(call, cell, b)
  masks = {name: _at(getattr(call.mask, name), b) for name in ("q_valid", "kv_valid", "q_segments", "k_segments")}
  q, k, v, x, y = (_at(None if array is None else np.asarray(array, np.float64), b) for array in inputs)
  y = x if y is None else y
  bias = None if call.bias is None else np.asarray(call.bias, np.float64)[b][:, picked]
  tokens = oracle.Tokens(q, np.asarray(picked), **masks)
  return Example(None if q is None else q[picked], k, v, readable, i, j, x[picked], y, bias, tokens)


def pairs(call: Call, cell: Cell, b: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """What example `b` may read (`N T S`), by the oracle's loops and not by the code under examination; positions."""
  shape, picked = cell.shape, list(cell.rows) or list(range(cell.shape.T))
  i = np.arange(shape.T) if call.positions.q is None else _at(call.positions.q, b)
  j = np.arange(shape.S) if call.positions.k is None else _at(call.positions.k, b)
  constraints = {name: _at(getattr(call.mask, name), b) for name in oracle.CONSTRAINTS}
  for name in ("q_valid", "q_segments"):
    constraints[name] = None if constraints[name] is None else constraints[name][picked]
  if constraints["explicit"] is not None:
    constraints["explicit"] = constraints["explicit"][:, picked]
  return oracle.readable(constraints, i[picked], j, heads=shape.N), i[picked], j


def readable_pairs(call: Call, shape: Shape) -> np.ndarray:
  """`B N T S`: what the mask lets be read."""
  return np.stack([pairs(call, Cell(shape), b)[0] for b in range(shape.B)])


def _slopes(
  subject: VariantUnderTest, cell: Cell, inputs: Inputs, call: Call, step: float
) -> Iterator[tuple[str, tuple[float, float]]]:
  """(name, (slope of the variant, slope of the oracle)) for a random direction of every float leaf.

  step: length of the differences, to each side.
  """
  params, rng = subject.params(cell.shape.dims()), np.random.default_rng(7)
  out = jax.eval_shape(subject.eager, params, inputs, call)
  cotangent = rng.normal(size=out.shape)
  if cell.rows:
    cotangent[:, [t for t in range(cell.shape.T) if t not in cell.rows]] = 0.0
  cotangent[: cell.shape.B - 1] = 0.0
  _, grads = subject.gradient(params, inputs, call, cotangent.astype(np.float32))
  point, base = (params, inputs, call.bias), example(inputs, call, cell, cell.shape.B - 1)
  paths, tree = jax.tree_util.tree_flatten_with_path(point)
  for index, ((path, leaf), grad) in enumerate(zip(paths, jax.tree.leaves(grads), strict=True)):
    if np.shape(grad) != np.shape(leaf):
      continue
    direction = rng.normal(size=leaf.shape)
    ends = []
    for sign in (1, -1):
      moved = [np.asarray(value, np.float64) for _, value in paths]
      moved[index] = moved[index] + sign * step * direction
      ends.append(_product(subject, cell, jax.tree.unflatten(tree, moved), call, cotangent, base))
    name = jax.tree_util.keystr(path[1:], simple=True, separator="/") or "bias"
    yield name, (float(np.sum(np.asarray(grad, np.float64) * direction)), (ends[0] - ends[1]) / (2 * step))


def _product(
  subject: VariantUnderTest, cell: Cell, point: Any, call: Call, cotangent: np.ndarray, base: Example
) -> float:
  """The oracle's output for the last example, the only one with a cotangent, times it.

  base: the example that has not moved, for a gradient that is not that of the output.
  """
  params, inputs, bias = point
  b = cell.shape.B - 1
  moved = example(inputs, call._replace(bias=bias), cell, b)
  if subject.claims.straight_through:
    out = subject.case.surrogate(subject.variant, params, moved, base)
  else:
    out = subject.case.oracle(subject.variant, params, moved)
  return float(np.sum(out * (cotangent[b][list(cell.rows)] if cell.rows else cotangent[b])))


def _plain(cell: Cell) -> bool:
  """Self-attention of all queries, without positions."""
  return not (cell.positions or cell.rows or cell.shape.cross)


def _readable_seed(subject: VariantUnderTest, cell: Cell) -> int:
  """The first seed whose last example may read half of what any seed lets it read: where nothing is, no slope is."""
  calls = [random_calls.call(subject, cell.shape, cell.names, seed, positions=cell.positions) for seed in range(8)]
  counts = [int(pairs(call, cell, cell.shape.B - 1)[0].sum()) for call in calls]
  return next(seed for seed, count in enumerate(counts) if 2 * count >= max(counts))


def _examples(cell: Cell) -> list[int]:
  """The examples that are compared: where only some rows are, the last alone."""
  return [cell.shape.B - 1] if cell.rows else list(range(cell.shape.B))


def _few_rows(cell: Cell) -> Cell:
  """The cell, its long form with two queries only: an oracle is called twice for each direction."""
  return dataclasses.replace(cell, rows=cell.rows[2::3])


def float64_params(subject: VariantUnderTest, cell: Cell) -> Any:
  """The parameters at the shape of a cell, as an oracle takes them."""
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), subject.params(cell.shape.dims()))


def _at(array: Any, b: int) -> Any:
  """Row `b` of an array `#B …`; flags and windows as they are."""
  return array if array is None or isinstance(array, bool | tuple) else np.asarray(array)[b % len(array)]


def _listed(call: Call) -> str:
  """The demands of a call, as in `bias+causal+positions`."""
  extras = {"bias"} if call.bias is not None else set()
  extras |= set() if call.positions.known else {"positions"}
  return "+".join(sorted(call.mask.names() | extras)) or "no mask"


def _grows(subject: VariantUnderTest) -> tuple[str, tuple[int, int]]:
  """The field that an approximation grows with, where its case names none: 64 times as much of it."""
  names = [field.name for field in dataclasses.fields(subject.variant) if field.name in GROWING_FIELDS]
  return (names or [""])[0], GROWTH


def _error(subject: VariantUnderTest, seed: int) -> float:
  shape = subject.shape(B=4, T=16, S=16, N=2, K=2, H=4)
  inputs = subject.inputs(shape, seed)
  out = subject.run(inputs, shape, Call(subject.mask()), seed)
  logits = np.einsum("btnh,bsnh->bnts", inputs.q, inputs.k) / np.sqrt(shape.H)
  if subject.claims.requires_causal:
    logits = np.where(np.tri(shape.T, dtype=bool), logits, -np.inf)
  numerators = np.exp(logits - logits.max(axis=-1, keepdims=True))
  weights = numerators / numerators.sum(axis=-1, keepdims=True)
  return float(np.mean(np.abs(out - np.einsum("bnts,bsnv->btnv", weights, inputs.v))))


PROOFS = {
  "equals its oracle": forward,
  "gradient equals its oracle's": gradient,
  "losses are the paper's": losses,
  "error falls with its features": converges,
}
