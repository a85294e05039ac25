"""Random keys by name, so that a parameter's initial value depends on its path and on nothing else in the model.

Were keys split in order, one extra parameter of a variant would move every later initial value, and no two variants
could be compared from the same start.
"""

import zlib

import jax
from jaxtyping import PRNGKeyArray


def child(key: PRNGKeyArray | None, name: str) -> PRNGKeyArray | None:
  """The key of the part `name`; None, which means no randomness, stays None."""
  return None if key is None else jax.random.fold_in(key, zlib.crc32(name.encode()))
