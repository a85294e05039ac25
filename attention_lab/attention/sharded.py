"""The one place through which layers call a variant: over many devices, batch and heads are split by `shard_map`.

Left to the partitioner, loops over heads and blocks compile to hidden all-gathers. Inside, each device sees its own
examples and heads and no others, so the only communication is the gathering of heads for a variant that mixes them.
A variant that draws random bits gets a key for each example, so that its bits are the same on any mesh.
"""

from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from attention_lab.attention.base import HEADS, Attention, AttentionOutput, Call, Params, State, check, check_extend
from attention_lab.attention.families import counter_rng
from attention_lab.attention.mask import CAUSAL, Mask

BATCH = ("data", "fsdp")  # the mesh axes that split the examples


def attend(
  variant: Attention, params: Params, q: Any, k: Any, v: Any, call: Call, mesh: Mesh | None = None
) -> AttentionOutput:
  """`variant.with_aux`, its examples split over the axes data and fsdp and its heads over tensor.

  Args:
    variant: the variant of the layer.
    params: its arrays; those under "per_head" are split with the heads, others are on every device.
    q: queries `B T N H`, or None where `projections` has no q; k and v likewise.
    k: keys `B S K H`.
    v: values `B S K V`.
    call: demands and offers; arrays with four axes are split by heads too.
    mesh: the devices; None or one device runs the variant as it is. A batch that does not divide is computed whole on
      every device.

  Returns:
    The output, split as q; losses and statistics are means over the devices.

  Raises:
    Unsupported: as `attention.base.check`.
    ValueError: heads that the axis tensor does not divide, or shapes that do not fit.
  """
  if mesh is None or mesh.size == 1:
    return variant.with_aux(params, q, k, v, call)
  check(variant, q, k, v, call)
  size = jax.tree.leaves((v, call.x))[0].shape[0]
  batch = _batch_axes(size, mesh)
  heads = None if variant.claims().mixes_heads else HEADS
  keys = None if call.key is None or not variant.claims().random else counter_rng.example_keys(call.key, size)
  offers, tree = jax.tree.flatten(call._replace(key=keys))
  arrays = {"params": params, "q": q, "k": k, "v": v, "call": offers}
  specs = {
    "params": _parameter_specs(params, heads),
    **{letter: P(batch, None, heads) for letter in "qkv"},
    "call": [_call_spec(batch, heads, array) for array in offers],
  }
  for letter in "qkv":
    _check_heads(letter, arrays[letter], mesh, heads)
  out = P(batch, None, heads if "o" in variant.projections else None)

  def local(arrays: dict[str, Any]) -> tuple:
    output = variant.with_aux(**{**arrays, "call": jax.tree.unflatten(tree, arrays["call"])})
    losses, stats = jax.lax.pmean((output.losses, output.stats), mesh.axis_names)
    return output.out, losses, stats

  outs: Any = (out, P(), P())
  return AttentionOutput(*jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=outs, check_vma=False)(arrays))


def extend(
  variant: Attention,
  params: Params,
  state: State,
  q: Any,
  k: Any,
  v: Any,
  *,
  x: Array | None = None,
  lengths: Array | None = None,
  mask: Mask = CAUSAL,
  mesh: Mesh | None = None,
) -> tuple[State, Array]:
  """`variant.extend`, its examples split over the axes data and fsdp; ten arguments, being a method's and the mesh.

  Args:
    variant: the variant of the layer.
    params: its arrays, on every device.
    state: the decoding state, every leaf with B as leading axis.
    q: queries of the new tokens `B T N H`, or None where `projections` has no q; k and v likewise.
    k: their keys `B T K H`.
    v: their values `B T K V`.
    x: the layer's input at the new tokens `B T D`.
    lengths: how many of the T tokens are real, `B`; None = all.
    mask: causal, possibly with window and prefix.
    mesh: the devices; None or one device runs the variant as it is.

  Returns:
    The state after the new tokens, and their output `B T N V`.

  Raises:
    Unsupported: as `attention.base.check_extend`.
  """
  if mesh is None or mesh.size == 1:
    return variant.extend(params, state, q, k, v, x=x, lengths=lengths, mask=mask)
  check_extend(variant, mask, lengths)
  rows = P(_batch_axes(jax.tree.leaves((v, x))[0].shape[0], mesh))

  def local(params: Params, state: State, arrays: tuple) -> tuple[State, Array]:
    q, k, v, x, lengths, mask = arrays
    return variant.extend(params, state, q, k, v, x=x, lengths=lengths, mask=mask)

  mapped = jax.shard_map(local, mesh=mesh, in_specs=(P(), rows, rows), out_specs=(rows, rows), check_vma=False)
  return mapped(params, state, (q, k, v, x, lengths, mask))


def _batch_axes(batch: int, mesh: Mesh) -> tuple[str, ...] | None:
  """The axes that split the batch; None if they do not divide it, and every device then computes all of it."""
  size = mesh.shape["data"] * mesh.shape["fsdp"]
  return None if batch % size else BATCH


def _check_heads(letter: str, array: Any, mesh: Mesh, heads: str | None) -> None:
  if heads is not None and array is not None and array.shape[2] % mesh.shape[heads]:
    kind = "query heads" if letter == "q" else "key and value heads"
    raise ValueError(f"{array.shape[2]} {kind} cannot be split over --config.mesh.tensor={mesh.shape[heads]} devices")


def _call_spec(batch: Any, heads: Any, array: Array) -> P:
  """How an array of a call is split: the batch in front (or 1), and, of four axes, heads next (or 1)."""
  first = batch if array.shape[0] > 1 else None
  return P(first, heads if array.shape[1] > 1 else None) if array.ndim == 4 else P(first)


def _parameter_specs(params: Params, heads: str | None) -> Any:
  """How parameters are split: those under "per_head" by heads, others not."""

  def spec(path: tuple, _: Array) -> P:
    return P(heads) if any(getattr(part, "key", None) == "per_head" for part in path) else P()

  return jax.tree_util.tree_map_with_path(spec, params)
