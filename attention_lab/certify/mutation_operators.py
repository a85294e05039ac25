"""Small syntactic changes of a variant's source file: what a slip of the hand could have written instead.

Left alone: docstrings, imports, annotations, decorators, published defaults of hyper-parameters, `claims()`, and error
messages with all that a check computes only to raise them. Each change is one expression; the changed file calls
`__reached__` where that expression is evaluated.
"""

import ast
import dataclasses
import re
from collections.abc import Iterator

REACHED = "__reached__"
_TWINS = ((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Add, ast.Sub), (ast.Mult, ast.Div))
_TWINS += ((ast.BitAnd, ast.BitOr),)
_OTHER: dict[type, type] = {a: b for pair in _TWINS for a, b in (pair, pair[::-1])}
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
class _Place:
  node: ast.AST
  function: str = ""
  guard: bool = False
  field: bool = False  # directly in the body of a class


def changes(source: str) -> tuple[Change, ...]:
  """Every change of a file, in its order."""
  found = [(place, *change) for place in _places(_Place(ast.parse(source))) for change in _changes(place.node)]
  found.sort(key=lambda change: (change[0].node.lineno, change[0].node.col_offset))
  return tuple(_change(source, *change) for change in found)


def spread(found: tuple[Change, ...], limit: int) -> tuple[Change, ...]:
  """At most `limit` of the changes, evenly from first to last; 0 = all."""
  return found if not 0 < limit < len(found) else tuple(found[i * len(found) // limit] for i in range(limit))


def _places(place: _Place) -> Iterator[_Place]:
  node = place.node
  if isinstance(node, _SKIPPED) or (isinstance(node, ast.FunctionDef) and node.name == "claims"):
    return
  if place.field and isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
    return
  yield place
  if _signed(node) is not None:
    return
  function = node.name if isinstance(node, ast.FunctionDef) else place.function
  for name, value in ast.iter_fields(node):
    for child in value if isinstance(value, list) else [value]:
      if isinstance(child, ast.AST) and name not in _SKIPPED_FIELDS and not (name == "body" and _raises(node)):
        guard = place.guard or function == "__post_init__" or (name == "test" and _raises(node))
        yield from _places(_Place(child, function, guard, isinstance(node, ast.ClassDef)))


def _raises(node: ast.AST) -> bool:
  return isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise)


def _signed(node: ast.AST) -> int | None:
  """The value of an integer constant, its sign included."""
  if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
    value = _signed(node.operand) if isinstance(node.operand, ast.Constant) else None
    return None if value is None else -value
  return node.value if isinstance(node, ast.Constant) and type(node.value) is int else None


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, str, str]]:
  """(node, operator, text in its place)."""
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


def _called(node: ast.Call) -> Iterator[tuple[ast.AST, str, str]]:
  name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
  if name in _CALLS:
    yield node.func, "minimum", re.sub(r"\w+$", _CALLS[name], ast.unparse(node.func))
  if name in _DROPPED and len(node.args) > _DROPPED[name]:
    yield node, name, ast.unparse(node.args[_DROPPED[name]])


def _change(source: str, place: _Place, node: ast.expr, operator: str, text: str) -> Change:
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
    place.function,
    place.guard,
    (raw[:start] + f"{REACHED}({text})".encode() + raw[stop:]).decode(),
  )


def _shown(lines: bytes) -> str:
  """Source on one line, without comments."""
  return " ".join(" ".join(re.sub(r"(^|\s+)# .*$", "", line) for line in lines.decode().splitlines()).split())
