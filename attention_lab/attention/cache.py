"""A cache of keys and values for decoding: slots with positions, a ring where a window bounds it."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention_lab.attention.positions import Positions
