"""The matrix of architectures and variants: each pair trains a few steps, or is refused for a missing capability.

What a pair should do is read off the variant's claims before the model is asked, so that a model that trains a variant
against its claims is a fault, as is one that refuses a variant although they allow it.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from attention_lab.attention import spec
from attention_lab.attention.base import Attention
from attention_lab.models.functional import Functional, Params
from attention_lab.tasks.base import Batch
from attention_lab.train import optimizer as optimizers
from attention_lab.train.state import FAST_COMPILE

STEPS = 3
LEARNING_RATE = 1e-2
STATUSES = RAN, REFUSED, FAILED = "ran", "refused", "failed"
VARIANT = "attention/params/"  # part of the path of a parameter that a variant made
FAST_ON_CPU = FAST_COMPILE | {"xla_cpu_use_fusion_emitters": False}  # a quarter of the time to compile


class MissingCapability(NamedTuple):
  """A capability that an architecture demands and a variant does not claim."""

  reason: str  # cell of the table
  phrase: str  # part of the message that refuses the variant


FindMissing = Callable[[Attention], MissingCapability | None]  # what the variant's claims lack, None for nothing


@dataclasses.dataclass(frozen=True, eq=False)
class Architecture:
  """A column: a tiny model around any variant, and one batch."""

  name: str
  build: Callable[[str], Functional]  # the model with this attention
  loss: Callable[[Functional, Params, Batch, PRNGKeyArray], tuple[Array, Mapping[str, Array]]]  # mean loss, and scalars
  batch: Callable[[], Batch]
  missing: FindMissing
  adapted: Callable[[Attention], Attention] = lambda variant: variant  # the variant as it is given to this architecture
  unread: Callable[[Attention], tuple[str, ...]] = lambda _: ()  # parts whose parameters the variant cannot reach
  causal: bool = False  # the mask is causal, so that a variant's parameters for later tokens are idle


@dataclasses.dataclass(frozen=True)
class Cell:
  """The outcome of one pair, as `matrix.jsonl` holds it."""

  variant: str  # the row's spec
  architecture: str
  status: str  # RAN, REFUSED or FAILED
  reason: str = ""  # the missing capability, or the fault
  message: str = ""  # text of the refusal
  losses: tuple[float, ...] = ()  # loss of each step, nats
  still: tuple[str, ...] = ()  # paths of the trainable parameters that no step moved
  seconds: float = 0.0


def cell(architecture: Architecture, row: str) -> Cell:
  """Trains the variant `row` in the architecture for `STEPS` steps, or says why not; whatever is raised is a result.

  Refused is a pair whose variant lacks a claim, if the error names the variant and the capability. Failed: any other
  error, a variant taken against its claims, a loss or parameter that is not finite, and a trainable parameter that
  never moved, unless it is of a part that the variant cannot reach, and then one that did; under a causal mask the
  variant's own may be idle, for some have one for later tokens.
  """
  start, variant = time.perf_counter(), architecture.adapted(spec.parse(row))
  outcome = _outcome(architecture, variant)
  return Cell(row, architecture.name, **outcome, seconds=round(time.perf_counter() - start, 2))


def _outcome(architecture: Architecture, variant: Attention) -> dict[str, Any]:
  missing, batch = architecture.missing(variant), architecture.batch()
  try:
    model = architecture.build(spec.to_string(variant))
    if missing is None:
      return _train(architecture, model, variant, batch)
    params = jax.eval_shape(model.init, jax.random.key(0))
    jax.eval_shape(functools.partial(architecture.loss, model), params, batch, jax.random.key(0))
    return {"status": FAILED, "reason": f"is taken, though its claims say: {missing.reason}"}
  except ValueError as error:
    return _refusal(variant, missing, error)
  except Exception as error:  # whatever a variant or a model does, the other cells are wanted
    return {"status": FAILED, "reason": _one_line(error)}


def _refusal(variant: Attention, missing: MissingCapability | None, error: ValueError) -> dict[str, Any]:
  message = " ".join(str(error).split())
  if missing is None:
    return {"status": FAILED, "reason": f"its claims allow it: {_one_line(error)}"}
  if not any(name in message for name in (type(variant).__name__, spec.to_string(variant))):
    return {"status": FAILED, "reason": f"the refusal does not name the variant: {message}"}
  if missing.phrase not in message:
    return {"status": FAILED, "reason": f"the refusal does not name what is missing ({missing.reason}): {message}"}
  return {"status": REFUSED, "reason": missing.reason, "message": message}


def _train(architecture: Architecture, model: Functional, variant: Attention, batch: Batch) -> dict[str, Any]:
  """`STEPS` steps of Adam as one program, over all parameters as one vector: few operations, so quick to compile."""
  trainable, fixed = optimizers.partition(model.init(jax.random.key(0)))
  start, unravel = ravel_pytree(trainable)
  adam = optax.adam(LEARNING_RATE)

  def loss(flat: Array, fixed: Params, batch: Batch, key: PRNGKeyArray) -> Array:
    return architecture.loss(model, optimizers.merge(unravel(flat), fixed), batch, key)[0]

  def run(start: Array, fixed: Params, batch: Batch, keys: Array) -> tuple[Array, Array]:
    def step(carry: tuple[Array, Any], key: PRNGKeyArray) -> tuple[tuple[Array, Any], Array]:
      flat, state = carry
      value, gradient = jax.value_and_grad(loss)(flat, fixed, batch, key)
      updates, state = adam.update(gradient, state, flat)
      return (optax.apply_updates(flat, updates), state), value

    (end, _), losses = jax.lax.scan(step, (start, adam.init(start)), keys)
    return end, losses

  options = FAST_ON_CPU if jax.default_backend() == "cpu" else FAST_COMPILE
  keys = jax.random.split(jax.random.key(1), STEPS)
  end, losses = jax.jit(run, compiler_options=options)(start, fixed, batch, keys)
  return _verdict(np.asarray(losses), unravel(start), unravel(end), architecture, variant)


def _verdict(
  losses: np.ndarray, before: Params, after: Params, architecture: Architecture, variant: Attention
) -> dict[str, Any]:
  """The outcome of a pair that trained: all is finite, and every parameter moved but those that may not."""
  leaves, ends = jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after)
  names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
  moved = [bool(np.any(np.asarray(a) != np.asarray(b))) for (_, a), b in zip(leaves, ends, strict=True)]
  still = tuple(name for name, has in zip(names, moved, strict=True) if not has)
  outcome = {"losses": tuple(round(float(value), 4) for value in losses), "still": still}
  unread, idle = architecture.unread(variant), {name for name in still if architecture.causal and VARIANT in name}
  wrong = {name for name in names if (name.partition("/")[0] in unread) != (name in still)} - idle
  if not all(np.all(np.isfinite(array)) for array in (losses, *ends)):
    return outcome | {"status": FAILED, "reason": "a loss or a parameter is not finite"}
  if wrong:
    verb = "moves" if wrong.isdisjoint(still) else "does not move"
    return outcome | {"status": FAILED, "reason": f"{', '.join(sorted(wrong))} {verb}"}
  return outcome | {"status": RAN}


def markdown(cells: Iterable[Cell], rows: Sequence[str], columns: Sequence[str]) -> str:
  """A table with a row for each variant and a column for each architecture, under it how many cells ran.

  ✓ has beside it what nothing moved: parts that the variant does not reach, and parameters of its own.
  """
  by_pair = {(cell.variant, cell.architecture): cell for cell in cells}
  lines = [f"| variant | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
  for row in rows:
    lines.append(f"| `{row}` | {' | '.join(_shown(by_pair.get((row, column))) for column in columns)} |")
  counts = []
  for column in columns:
    statuses = [by_pair[row, column].status for row in rows if (row, column) in by_pair]
    counts.append(" / ".join(str(statuses.count(status)) for status in (RAN, REFUSED, FAILED)))
  return "\n".join([*lines, f"| ran / refused / failed | {' | '.join(counts)} |"])


def _shown(cell: Cell | None) -> str:
  if cell is None:
    return "not run"
  if cell.status == RAN:
    parts = sorted({name.rpartition("/")[2] if VARIANT in name else name.partition("/")[0] for name in cell.still})
    return f"✓ (idle: {', '.join(parts)})" if parts else "✓"
  return cell.reason if cell.status == REFUSED else f"**FAILED** {cell.reason}".replace("|", "\\|")


def _one_line(error: Exception) -> str:
  return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
