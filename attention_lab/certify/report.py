"""Certificates for people (a terminal), for machines (JSON) and for the README (a Markdown table of variants)."""

import dataclasses
import json
from collections.abc import Iterable

from attention_lab.attention.mask import NAMES
from attention_lab.certify.finding import FAILED, NOT_CLAIMED, PROVED, Certificate, Finding

_MARKS = {PROVED: "proved", FAILED: "FAILED"}
NO_EQUATION = "equality with an equation was not proved"
_COST = {0: "1", 1: "T", 2: "T²", 3: "T³"}
_COLUMNS = (
  "variant",
  "paper",
  "masks honoured",
  "cross",
  "decoding state",
  "grouped",
  "exactness",
  "time",
  "memory",
  "proofs",
)
_MASKS = 7  # constraints that a mask can hold


def text(certificate: Certificate) -> str:
  """One certificate for a terminal: a line for each claim, failures with their counter-example and snippet."""
  findings = certificate.findings
  width = max(len(finding.claim) for finding in findings)
  lines = [f"{certificate.spec}: {summary(certificate)}"]
  for finding in findings:
    if finding.status != NOT_CLAIMED:
      lines.append(f"  {_MARKS.get(finding.status, finding.status):<9}  {finding.claim:<{width}}  {finding.detail}")
    if finding.status == FAILED:
      lines += [f"             {line}" for line in counterexample(finding)]
  rest = [finding.claim for finding in findings if finding.status == NOT_CLAIMED]
  return "\n".join([*lines, f"  not claimed: {', '.join(rest)}"] if rest else lines)


def counterexample(finding: Finding) -> list[str]:
  """Where a claim fails, and how to see it."""
  seed = "" if finding.seed < 0 else f"seed {finding.seed}"
  where = "; ".join(part for part in (finding.shape, seed, finding.position) if part)
  snippet = ["", *(f"  {line}" for line in finding.snippet.splitlines()), ""] if finding.snippet else []
  return [*([f"counter-example: {where}"] if where else []), *snippet]


def summary(certificate: Certificate) -> str:
  """`34 of 34 claims proved`, how many could not be examined, and first of all whether no equation is behind it."""
  proved, failed = certificate.count(PROVED), certificate.count(FAILED)
  rest = [f.status for f in certificate.findings if f.status not in (PROVED, FAILED, NOT_CLAIMED)]
  notes = "".join(f", {rest.count(status)} {status}" for status in sorted(set(rest)))
  warning = "" if certificate.equation else f"{NO_EQUATION}; "
  return f"{warning}{proved} of {proved + failed} claims proved{notes}"


def to_json(certificates: Iterable[Certificate]) -> str:
  """All certificates as an indented JSON list; the key of their metadata is `facts`."""
  rows = [
    {"equation": "equality with an equation was proved" if certificate.equation else NO_EQUATION}
    | {"spec": certificate.spec, "findings": [dataclasses.asdict(finding) for finding in certificate.findings]}
    | {"facts": certificate.metadata, "summary": summary(certificate)}
    for certificate in certificates
  ]
  return json.dumps(rows, indent=2, ensure_ascii=False)


def markdown(certificates: Iterable[Certificate]) -> str:
  """The table of variants: one row for each certificate that could be made; first those without an equation."""
  certificates = [certificate for certificate in certificates if certificate.metadata]
  rows = [_row(certificate) for certificate in certificates]
  unproved = [f"`{certificate.spec}`: {NO_EQUATION}.\n" for certificate in certificates if not certificate.equation]
  head = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
  return "\n".join(unproved + head + [f"| {' | '.join(row)} |" for row in rows])


def demands(certificates: Iterable[Certificate]) -> str:
  """A Markdown matrix of every demand and every variant: ● is honoured, ○ refused by name; the battery proves both."""
  columns = (*NAMES, "bias", "cross", "K < N", "decoding")
  lines = [f"| variant | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
  for certificate in certificates:
    metadata = certificate.metadata
    if not metadata:
      continue
    honoured = [name in metadata["masks"] for name in NAMES]
    honoured += [metadata[name] for name in ("bias", "cross", "supports_gqa", "decode")]
    lines.append(f"| `{certificate.spec}` | {' | '.join('●' if each else '○' for each in honoured)} |")
  return "\n".join(lines)


def _row(certificate: Certificate) -> tuple[str, ...]:
  metadata = certificate.metadata
  proved, failed = certificate.count(PROVED), certificate.count(FAILED)
  every_mask, masks = len(metadata["masks"]) == _MASKS, ", ".join(metadata["masks"]) or "none"
  if every_mask:
    masks = "all, bias" if metadata["bias"] else "all"
  return (
    f"`{certificate.spec}`",
    f"[{metadata['paper']}]({metadata['url']})" if metadata["url"] else "",
    masks + (" (causal only)" if metadata["requires_causal"] else ""),
    "yes" if metadata["cross"] else "no",
    _COST[metadata["state_exponent"]] if metadata["decode"] else "no",
    "yes" if metadata["supports_gqa"] else "no",
    metadata["exactness"],
    _COST[metadata["time_exponent"]],
    _COST[metadata["memory_exponent"]],
    f"{proved}/{proved + failed}",
  )
