"""How a model tells its layers where tokens stand: specs of codes, and the rule for which layer takes which.

    rope    rope(scaling='yarn', factor=4.0, length=1024)    rope+learned

A spec is `auto`, `none`, or codes joined by `+`, at most one for each part of the model; `resolve` is the one rule for
`--config.model.positions`:

  auto      what each layer needs: nothing where its variant has positions of its own or is published without, RoPE
            where it has queries and keys, and learned codes on the embeddings if some layer has neither
  none      nothing
  learned, sinusoidal, sincos2d     added to the embeddings, whatever the variants have
  rope, rope2d    turn queries and keys in every layer without positions of its own
  bias2d    added to the logits in every layer without positions of its own

Of the codes that act inside layers, each must be taken by some layer, and without a code on the embeddings each layer
without positions of its own must take one; else they are refused by name. Those in 2d need a grid.
"""

import ast
from typing import TypeVar

from attention_lab.attention import spec
from attention_lab.attention.base import Attention, Dims, Unsupported
from attention_lab.models.config_checks import FLAG, choose
from attention_lab.models.position_encodings import (
  AddedEncoding,
  Bias2d,
  Learned,
  PositionEncoding,
  Sincos2d,
  Sinusoidal,
)
from attention_lab.models.rope import Rope, Rope2d

CODES: tuple[type[PositionEncoding], ...] = (Learned, Sinusoidal, Sincos2d, Rope, Rope2d, Bias2d)
ALONE = ("auto", "none")
NAMES = {kind.__name__.lower(): kind for kind in CODES}
EncodingT = TypeVar("EncodingT", bound=PositionEncoding)


def parse(text: str) -> tuple[PositionEncoding, ...]:
  """The codes that `text` names; none for `none`. Raises ValueError in one line; `auto` needs `resolve`."""
  text = text.strip()
  if text == "none":
    return ()
  try:
    parts = _parts(ast.parse(text, mode="eval").body)
  except (SyntaxError, ValueError) as error:
    raise ValueError(f"{FLAG}.positions={text} is malformed: write name(argument=value), joined by +") from error
  codes = [_code(part, text) for part in parts]
  for i, code in enumerate(codes):
    for other in codes[:i]:
      if other.acts_on == code.acts_on:
        both = f"{other.name} and {code.name} both act on {code.acts_on}"
        raise ValueError(f"{FLAG}.positions={text}: {both}; give one of the two")
  return tuple(codes)


def to_string(codes: tuple[PositionEncoding, ...]) -> str:
  """The shortest spec that parses to `codes`."""
  return "+".join(code.name + spec.arguments(code) for code in codes) or "none"


def resolve(positions: str, variants: tuple[Attention, ...], grid: bool = False) -> tuple[PositionEncoding, ...]:
  """The position encodings that the spec `positions` stands for in these layers.

  grid: whether tokens have rows and columns. Raises ValueError for an unknown or impossible choice, Unsupported for a
  variant that cannot take it.
  """
  needy = [variant for variant in variants if not _settled(variant)]
  if positions.strip() == "auto":
    stiff = [variant for variant in needy if Rope().refusal(variant)]
    return (Rope(),) * (len(needy) > len(stiff)) + (Learned(),) * bool(stiff)
  codes = parse(positions)
  inner = [code for code in codes if not isinstance(code, AddedEncoding)]
  for code in codes:
    if code.needs_grid and not grid:
      raise ValueError(f"{FLAG}.positions={code.name} needs images; give {code.alternative} for sequences")
  for code in inner:
    if not needy:
      reason = f"{spec.to_string(variants[0])} has positions of its own"
      raise Unsupported(f"{FLAG}.positions={code.name}: {reason}; give auto or none")
    if all(code.refusal(variant) for variant in needy):
      raise Unsupported(f"{FLAG}.positions={code.name} {code.refusal(needy[0])}")
  for variant in needy if inner and len(inner) == len(codes) else ():
    if all(code.refusal(variant) for code in inner):
      raise Unsupported(f"{FLAG}.positions={inner[0].name} {inner[0].refusal(variant)}")
  return codes


def check_widths(codes: tuple[PositionEncoding, ...], dims: Dims) -> None:
  """Raises ValueError for widths that the codes cannot halve."""
  for code in codes:
    code.check(dims)


def layer_encoding(codes: tuple[PositionEncoding, ...], variant: Attention, kind: type[EncodingT]) -> EncodingT | None:
  """The code of this kind that a layer with this variant takes; None where it takes none."""
  if _settled(variant):
    return None
  return next((code for code in codes if isinstance(code, kind) and not code.refusal(variant)), None)


def _settled(variant: Attention) -> bool:
  """Whether a layer has positions, or is published without."""
  return variant.claims().encodes_positions or variant.claims().needs_no_positions


def _parts(node: ast.expr) -> list[ast.expr]:
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
    return _parts(node.left) + _parts(node.right)
  return [node]


def _code(node: ast.expr, text: str) -> PositionEncoding:
  call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
  if not isinstance(call.func, ast.Name):
    grammar = "codes hold for all layers and heads: write name(argument=value), joined by +"
    raise ValueError(f"{FLAG}.positions={text} is malformed: {grammar}")
  name = choose(f"{FLAG}.positions", call.func.id, (*ALONE, *NAMES))
  if name in ALONE:
    raise ValueError(f"{FLAG}.positions={text}: {name} stands alone; leave out the rest, or {name}")
  try:
    return spec.instance(NAMES[name], name, call)
  except ValueError as error:
    raise ValueError(f"{FLAG}.positions={text}: {error}") from error
