"""Attention variants as pure functions: `Attention` is the interface, `spec.parse` finds a variant by its name."""

from attention_lab.attention.base import Attention, AttentionOutput, Call, Claims, Dims, Unsupported
from attention_lab.attention.mask import CAUSAL, FULL, Mask
from attention_lab.attention.positions import Positions

__all__ = [
  "CAUSAL",
  "FULL",
  "Attention",
  "AttentionOutput",
  "Call",
  "Claims",
  "Dims",
  "Mask",
  "Positions",
  "Unsupported",
]
