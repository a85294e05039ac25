"""Attention variants as pure functions: `Attention` is the interface, `spec.parse` finds a variant by its name."""

from attention_lab.attention.base import Attended, Attention, Call, Claims, Dims, Refused
from attention_lab.attention.mask import CAUSAL, FULL, Mask
from attention_lab.attention.positions import Positions

__all__ = ["CAUSAL", "FULL", "Attended", "Attention", "Call", "Claims", "Dims", "Mask", "Positions", "Refused"]
