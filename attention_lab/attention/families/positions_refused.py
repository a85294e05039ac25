"""Variants that know tokens by their place in the array."""

from attention_lab.attention.base import Attention, Call, Unsupported


def refuse_positions(variant: Attention, call: Call) -> None:
  """Raises Unsupported where positions are given: they are not what `variant` orders tokens by."""
  if not call.positions.known:
    raise Unsupported(
      f"{type(variant).__name__} knows tokens by their place in the array and has no use for positions: leave them out"
    )
