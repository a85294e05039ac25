"""Variants that mix all places of the layer's input, without projections and heads."""

import dataclasses
from typing import ClassVar

from attention_lab.attention.base import Attention, Claims


@dataclasses.dataclass(frozen=True)
class Mixer(Attention):
  """Every output place depends on all valid places, known by their order in the array: honours padding alone."""

  projections: ClassVar[str] = ""

  def claims(self) -> Claims:
    return Claims(
      masks=frozenset({"q_valid", "kv_valid"}),
      cross=False,
      decode=False,
      supports_gqa=False,
      per_query=False,
      mixes_heads=True,
      exactness="other",
      time_exponent=1,
    )
