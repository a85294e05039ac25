"""Controls that mix all tokens of the layer's input by their index in the array, without projections and heads."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attention_lab.attention.base import Attention, Call, Claims, Params, logits_dtype, refuse_positions


@dataclasses.dataclass(frozen=True)
class Mixer(Attention):
  """out = mix(x): each output token depends on all valid tokens of x `B T D`. Honours padding alone."""

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

  @abc.abstractmethod
  def mix(self, params: Params, x: Float[Array, "B T D"], valid: Bool[Array, "#B T"] | None) -> Float[Array, "B T D"]:
    """The equation, in float32 or wider; a token that is not `valid` counts nothing (None: all are)."""

  def attend(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> Array:
    refuse_positions(self, call)
    x: Any = call.x
    mixed = self.mix(params, x.astype(logits_dtype(x)), call.mask.kv_valid)
    if call.mask.q_valid is not None:
      mixed = jnp.where(call.mask.q_valid[:, :, None], mixed, 0.0)
    return mixed.astype(x.dtype)
