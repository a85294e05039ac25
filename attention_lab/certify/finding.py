"""Findings: the outcome of a proof, the exceptions that end it without success, and the comparison of two outputs."""

import dataclasses
from typing import Any

import numpy as np

PROVED, FAILED, NOT_CLAIMED, NOT_GIVEN, NOT_RUN = "proved", "failed", "not claimed", "not given", "not run"
NOT_ASKED = "not asked"  # of a function from outside: what its adapter cannot ask, or answers in its stead

FORWARD = 2e-5  # largest error of a float32 output, relative to the largest entry of the reference (at least 1)
GRADIENT = 2e-4  # the same for a directional derivative


@dataclasses.dataclass(frozen=True)
class Finding:
  """The outcome for one claim; for a failure also where the counter-example is and a snippet that shows it."""

  claim: str
  status: str  # proved, failed, not claimed, not given, not run, not asked
  detail: str
  shape: str = ""  # sizes of the counter-example, as in 'B2 T5 S5 N4 K2 H3 V2'
  seed: int = -1
  position: str = ""  # example, query and head of the largest error
  snippet: str = ""  # at most six runnable lines


@dataclasses.dataclass(frozen=True)
class Certificate:
  """All findings of one variant."""

  spec: str
  findings: tuple[Finding, ...]
  metadata: dict[str, Any] = dataclasses.field(default_factory=dict)  # title, paper, claims: for tables

  def count(self, status: str) -> int:
    """How many findings have this status."""
    return sum(finding.status == status for finding in self.findings)

  @property
  def failures(self) -> tuple[Finding, ...]:
    """The findings that refute a claim."""
    return tuple(finding for finding in self.findings if finding.status == FAILED)

  @property
  def equation(self) -> bool:
    """Whether the output was proved equal to that of an oracle, which an equation stands behind."""
    return any(finding.claim == "equals its oracle" and finding.status == PROVED for finding in self.findings)


class Refuted(AssertionError):
  """A counter-example: what went wrong, at which shape, under which seed, and where in the output."""

  def __init__(self, detail: str, *, shape: Any = "", seed: int = -1, position: str = ""):
    super().__init__(detail)
    self.detail, self.shape, self.seed, self.position = detail, str(shape), seed, position


class Undecided(Exception):
  """A proof that cannot be made, with its status (not claimed, not given, not run, not asked) and the reason."""

  def __init__(self, status: str, reason: str):
    super().__init__(reason)
    self.status, self.reason = status, reason


def require(condition: bool, reason: str, status: str = NOT_CLAIMED) -> None:
  """Ends a proof as undecided unless `condition` holds."""
  if not condition:
    raise Undecided(status, reason)


def same(value: Any, expected: Any, what: str, *, tolerance: float = FORWARD, shape: Any = "", seed: int = -1) -> float:
  """The largest error of an array, relative to the largest entry of the reference, which counts as at least 1.

  Args:
    value: the array in question.
    expected: the reference, of the same shape.
    what: names the comparison in a refutation.
    tolerance: the largest error that is allowed.
    shape: sizes of the call, for the counter-example.
    seed: seed of the inputs, for the counter-example.

  Returns:
    The error; 0 for arrays without entries.

  Raises:
    Refuted: the shapes differ, the error is larger than `tolerance`, or only one of the arrays is finite. The position
      of the largest error has the axes' names for outputs `B T N V`, else plain indices.
  """
  value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
  if value.shape != expected.shape:
    raise Refuted(f"{what}: the output has shape {value.shape}, not {expected.shape}", shape=shape, seed=seed)
  if not value.size:
    return 0.0
  errors = np.abs(value - expected) / max(1.0, float(np.max(np.abs(expected))))
  errors = np.where(np.isnan(errors), np.inf, errors)
  worst = np.unravel_index(int(np.argmax(errors)), errors.shape)
  if errors[worst] > tolerance:
    values = f"{value[worst]:.6g} where {expected[worst]:.6g} is right"
    detail = f"{what}: {values} (error {errors[worst]:.1e} > {tolerance:.0e})"
    raise Refuted(detail, shape=shape, seed=seed, position=_position(worst))
  return float(errors[worst])


def _position(index: tuple) -> str:
  """`example 0, query 3, head 1, entry 0` for an index into `B T N V`."""
  names = ("example", "query", "head", "entry") if len(index) == 4 else [f"axis {axis}" for axis in range(len(index))]
  return ", ".join(f"{name} {int(at)}" for name, at in zip(names, index, strict=True))
