"""Small syntactic changes of a variant's source file: what a slip of the hand could have written instead.

Left alone: docstrings, imports, annotations, decorators, published defaults of hyper-parameters, `claims()`, and error
messages with all that a check computes only to raise them. Each change is one expression; the changed file calls
`__reached__` where that expression is evaluated.
"""

import ast
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

REACHED = "__reached__"  # the function that a mutant calls where its changed expression is evaluated
_COMPARISONS = ((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq))
_ARITHMETIC = ((ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.BitAnd, ast.BitOr))
# Each operator's counterpart, which takes its place in a mutant.
_OTHER: dict[type, type] = {a: b for pair in (*_COMPARISONS, *_ARITHMETIC) for a, b in (pair, pair[::-1])}
_CALLS = {"minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min"}
_DROPPED = {"where": 1, "cumsum": 0, "stop_gradient": 0}  # the argument that stays
_SKIPPED = (ast.Import, ast.ImportFrom, ast.Raise, ast.JoinedStr)
_SKIPPED_FIELDS = ("annotation", "returns", "decorator_list")
_COMPOUND = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Lambda)


@dataclasses.dataclass(frozen=True)
class Change:
  """One mutant of a file."""

  line: int
  operator: str  # comparison, constant, sign, arithmetic, logic, minimum, where, cumsum, stop_gradient, flag
  before: str  # the lines of the expression
  after: str
  function: str  # the innermost function around it, "" outside of all
  guard: bool  # in a check of arguments or shapes that raises
  source: str  # the whole changed file


@dataclasses.dataclass(frozen=True)
class _Site:
  """A node of the syntax tree that may be changed, and where it stands."""

  node: Any
  function: str = ""
  guard: bool = False
  field: bool = False  # directly in the body of a class


def changes(source: str) -> tuple[Change, ...]:
  """Every change of a file, in its order."""
  edits = [(site, *edit) for site in _sites(_Site(ast.parse(source))) for edit in _edits(site.node)]
  edits.sort(key=lambda edit: (edit[0].node.lineno, edit[0].node.col_offset))
  return tuple(_change(source, *edit) for edit in edits)


def spread(mutants: tuple[Change, ...], limit: int) -> tuple[Change, ...]:
  """At most `limit` of the changes, evenly from first to last; 0 = all."""
  count = len(mutants)
  return mutants if not 0 < limit < count else tuple(mutants[i * count // limit] for i in range(limit))


def _sites(site: _Site) -> Iterator[_Site]:
  node = site.node
  if isinstance(node, _SKIPPED) or (isinstance(node, ast.FunctionDef) and node.name == "claims"):
    return
  if site.field and isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
    return
  yield site
  if _signed(node) is not None:
    return
  function = node.name if isinstance(node, ast.FunctionDef) else site.function
  for name, value in ast.iter_fields(node):
    for child in value if isinstance(value, list) else [value]:
      if isinstance(child, ast.AST) and name not in _SKIPPED_FIELDS and not (name == "body" and _raises(node)):
        guard = site.guard or function == "__post_init__" or (name == "test" and _raises(node))
        yield from _sites(_Site(child, function, guard, isinstance(node, ast.ClassDef)))


def _raises(node: ast.AST) -> bool:
  return isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise)


def _signed(node: ast.AST) -> int | None:
  """The value of an integer constant, its sign included."""
  if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
    value = _signed(node.operand) if isinstance(node.operand, ast.Constant) else None
    return None if value is None else -value
  return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _edits(node: ast.AST) -> Iterator[tuple[Any, str, str]]:
  """(node, name of the operator, text that takes the node's place)."""
  value = _signed(node)
  if value is not None:
    yield from ((node, "constant", str(value + step)) for step in (-1, 1))
  if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
    yield node, "sign", ast.unparse(node.operand)
  elif isinstance(node, ast.Compare):
    for index, op in enumerate(node.ops):
      if type(op) in _OTHER:
        ops = [*node.ops[:index], _OTHER[type(op)](), *node.ops[index + 1 :]]
        yield node, "comparison", ast.unparse(ast.Compare(node.left, ops, node.comparators))
  elif isinstance(node, ast.BinOp) and type(node.op) in _OTHER:
    name = "logic" if isinstance(node.op, ast.BitAnd | ast.BitOr) else "arithmetic"
    yield node, name, ast.unparse(ast.BinOp(node.left, _OTHER[type(node.op)](), node.right))
  elif isinstance(node, ast.Call):
    yield from _called(node)
  elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool):
    yield node.value, "flag", str(not node.value.value)


def _called(node: ast.Call) -> Iterator[tuple[Any, str, str]]:
  name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
  if name in _CALLS:
    yield node.func, "minimum", re.sub(r"\w+$", _CALLS[name], ast.unparse(node.func))
  if name in _DROPPED and len(node.args) > _DROPPED[name]:
    yield node, name, ast.unparse(node.args[_DROPPED[name]])


def _change(source: str, site: _Site, node: ast.expr, operator: str, text: str) -> Change:
  lines = source.encode().splitlines(keepends=True)
  offsets = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]
  first, last = offsets[node.lineno - 1], offsets[node.end_lineno or node.lineno]
  start, stop = first + node.col_offset, offsets[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
  raw, new = source.encode(), ast.parse(text, mode="eval").body
  bare = _signed(new) is not None or not isinstance(new, _COMPOUND) or isinstance(node, type(new))
  shown = text if bare else f"({text})"
  return Change(
    node.lineno,
    operator,
    _shown(raw[first:last]),
    _shown(raw[first:start] + shown.encode() + raw[stop:last]),
    site.function,
    site.guard,
    (raw[:start] + f"{REACHED}({text})".encode() + raw[stop:]).decode(),
  )


def _shown(lines: bytes) -> str:
  """Source on one line, without comments."""
  return " ".join(" ".join(re.sub(r"(^|\s+)# .*$", "", line) for line in lines.decode().splitlines()).split())
