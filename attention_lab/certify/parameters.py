"""Parameters: none is there for show."""

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.certify.finding import Refuted, require
from attention_lab.certify.under_test import VariantUnderTest


def act(subject: VariantUnderTest) -> str:
  """Every parameter changes the output."""
  shape, call = subject.shape(T=7, S=7), Call(subject.mask(), key=jax.random.key(0))
  leaves, tree = jax.tree_util.tree_flatten_with_path(subject.params(shape.dims()))
  floats = [index for index, (_, leaf) in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]
  require(bool(floats), "has no parameters")

  def out(seed: int, moved: int = -1) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=leaves[moved][1].shape).astype(np.float32)
    values = [leaf + 0.5 * steps if index == moved else leaf for index, (_, leaf) in enumerate(leaves)]
    return np.asarray(subject.forward(jax.tree.unflatten(tree, values), subject.inputs(shape, seed, scale=1.5), call))

  for index in floats:
    if not any(np.any(np.abs(out(seed, index) - out(seed)) > 1e-5) for seed in range(4)):
      name = jax.tree_util.keystr(leaves[index][0], simple=True, separator="/")
      raise Refuted(f"the parameter {name} changes nothing", shape=shape)
  return f"{len(floats)} leaves"


PROOFS = {"every parameter acts": act}
