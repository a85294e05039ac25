"""What the battery says: findings, and the ways in which a proof can end without success."""

import dataclasses
from typing import Any

PROVED, FAILED, NOT_CLAIMED, NOT_GIVEN, NOT_RUN = "proved", "failed", "not claimed", "not given", "not run"


@dataclasses.dataclass(frozen=True)
class Finding:
  """The outcome for one claim; for a failure also where the counter-example is and a snippet that shows it."""

  claim: str
  status: str  # proved, failed, not claimed, not given, not run
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
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)  # what a table of variants says: paper, claims

  def count(self, status: str) -> int:
    """How many findings have this status."""
    return sum(finding.status == status for finding in self.findings)

  @property
  def failures(self) -> tuple[Finding, ...]:
    """The findings that refute a claim."""
    return tuple(finding for finding in self.findings if finding.status == FAILED)


class Refuted(AssertionError):
  """A counter-example was found."""

  def __init__(self, detail: str, *, shape: Any = "", seed: int = -1, position: str = ""):
    super().__init__(detail)
    self.detail, self.shape, self.seed, self.position = detail, str(shape), seed, position


class Undecided(Exception):
  """A proof that cannot be made, with the status that says why: not claimed, not given or not run."""

  def __init__(self, status: str, reason: str):
    super().__init__(reason)
    self.status, self.reason = status, reason


def require(condition: bool, reason: str, status: str = NOT_CLAIMED) -> None:
  """Ends a proof as undecided unless `condition` holds."""
  if not condition:
    raise Undecided(status, reason)
