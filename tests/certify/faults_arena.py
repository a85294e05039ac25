"""The defects of the released Long Range Arena, as far as they lie in attention, in our own words."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from faults import HIDDEN, PLAIN, Bite, Dense, case_of, frozen, masked

from attention_lab.attention.base import Claims
from attention_lab.attention.mask import Mask
from attention_lab.attention.variants.block_local import BlockLocal
from attention_lab.attention.variants.linear import Linear
from attention_lab.attention.variants.linformer import Linformer
from attention_lab.attention.variants.longformer import Longformer
from attention_lab.attention.variants.lsh import Lsh
from attention_lab.attention.variants.performer import Performer
from attention_lab.certify import battery, oracle


def strides(length, block):
  """The block of each token as a reshape to (block, blocks) makes it: token i falls into i mod blocks."""
  return jnp.arange(length) % -(-length // block)


@frozen
class ArenaLocal(BlockLocal):
  """Reshapes to (block, blocks) where (blocks, block) is meant: a query reads far keys, never its neighbour."""

  def attend(self, params, q, k, v, call):
    blocks = strides(k.shape[1], self.block)
    return Dense().attend(
      params,
      q * q.shape[3] ** -0.5,
      k,
      v,
      call._replace(mask=call.mask & Mask(explicit=_same(blocks, blocks))),
    )


def _same(a, b):
  return (a[:, None] == b[None])[None, None]


@frozen
class ArenaPadding(ArenaLocal):
  """Besides, reshapes the padding mask in the other order, so that it falls on other tokens."""

  def claims(self):
    return dataclasses.replace(super().claims(), masks=frozenset({"kv_valid", "q_valid"}))

  def pattern(self, params, i, j):
    return True

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, masked(call, kv_valid=_reordered(call.mask.kv_valid, self.block)))


def _reordered(valid, block):
  """What (blocks, block) calls the token that (block, blocks) calls i."""
  if valid is None:
    return None
  length, blocks = valid.shape[1], -(-valid.shape[1] // block)
  i = jnp.arange(length)
  padded = jnp.pad(valid, ((0, 0), (0, blocks * block - length)))
  return padded[:, i % blocks * block + i // blocks]


@frozen
class Sinkhorn(Dense):
  """Sinkhorn attention with a hard sort: a block reads itself and the one that its keys' sum is mapped to."""

  block: int = 3

  def claims(self):
    masks = frozenset({"kv_valid", "q_valid"})
    return Claims(masks=masks, cross=False, decode=False, per_query=False, exactness="other")

  def init(self, key, dims):
    return {"sort": jax.random.normal(key, (dims.head, -(-dims.max_len // self.block)))}

  def blocks(self, length):
    return jnp.arange(length) // self.block

  def attend(self, params, q, k, v, call):
    S, K = k.shape[1:3]
    blocks = self.blocks(S)
    valid = call.positions.keys(S) >= 0
    valid = valid if call.mask.kv_valid is None else valid & call.mask.kv_valid
    count = -(-S // self.block)
    members = jax.nn.one_hot(blocks, count)[None] * valid[:, :, None]
    scores = jnp.einsum("bskh,bsm,hl->bkml", k, members, params["sort"][:, :count])
    occupied = members.any(axis=1)[:, None, None]
    chosen = jnp.argmax(jnp.where(occupied, scores, -jnp.inf), axis=-1)[:, :, blocks]
    sorted_in = chosen[..., None] == blocks[None, None, None]
    reads = jnp.repeat(_same(blocks, blocks) | sorted_in, q.shape[2] // K, axis=1)
    return super().attend(params, q, k, v, call._replace(mask=call.mask & Mask(explicit=reads)))


@frozen
class ArenaSinkhorn(Sinkhorn):
  """Sinkhorn's reshape: the blocks that are sorted are strides."""

  def blocks(self, length):
    return strides(length, self.block)


@frozen
class UnsortedSinkhorn(Sinkhorn):
  """Sinkhorn's sort contracted away, its two axes having two names: every block reads the sum of all."""

  def attend(self, params, q, k, v, call):
    return Dense.attend(self, params, q, k, v, call)


def sinkhorn(variant, params, example) -> np.ndarray:
  """Sinkhorn attention, block by block."""
  read = np.zeros_like(example.readable)
  for n, t, s in np.ndindex(*read.shape):
    g, mine = oracle.kv_head(example, n), t // variant.block
    seen = [j for j in range(read.shape[2]) if example.readable[n, :, j].any()]
    blocks = sorted({j // variant.block for j in seen})
    total = sum((example.k[j, g] for j in seen if j // variant.block == mine), start=np.zeros(example.k.shape[2]))
    chosen = max(blocks, key=lambda b: float(total @ params["sort"][:, b]), default=mine)
    read[n, t, s] = example.readable[n, t, s] and s // variant.block in (mine, chosen)
  return PLAIN.oracle(variant, params, dataclasses.replace(example, readable=read))


SINKHORN = case_of(sinkhorn, ALL_ROWS=True)


class Unpadded:
  """Takes the padding mask and drops it; the error that says so is made and never raised."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, masked(call, kv_valid=None))


@frozen
class DeafLinear(Unpadded, Linear):
  """Linear attention without its padding mask."""


@frozen
class DeafLinformer(Unpadded, Linformer):
  """Linformer without its padding mask: are masks relevant where length is mixed?"""


@frozen
class DeafPerformer(Unpadded, Performer):
  """Performer without its padding mask, which comes as a bias that is accepted and never used."""


@frozen
class Biased(Performer):
  """Performer that says that it honours a bias."""

  def claims(self):
    return dataclasses.replace(super().claims(), bias=True)


@frozen
class DeafLsh(Unpadded, Lsh):
  """Reformer without a path for masks."""


@frozen
class AheadLsh(Lsh):
  """Reformer's causal flag, which says "not working yet" and passes."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, masked(call, causal=False))


@frozen
class SharpLsh(Lsh):
  """Reformer's logits times √H, not divided by it."""

  def attend(self, params, q, k, v, call):
    return Lsh(self.hashes, self.buckets, scale=q.shape[3] ** 0.5).attend(params, q, k, v, call)


@frozen
class Filled(Dense):
  """Zeros that fill the last chunk, and are read: Reformer's lengths."""

  def weights(self, logits, readable):
    room = ((0, 0), (0, 0), (0, 0), (0, 8 - logits.shape[3] % 8))
    readable = jnp.pad(jnp.broadcast_to(readable, logits.shape), room, constant_values=True)
    return super().weights(jnp.pad(logits, room), readable)[..., : logits.shape[3]]


@frozen
class IdleLongformer(Longformer):
  """Longformer with a second set of projections for global tokens, which there never are."""

  def init(self, key, dims):
    return {"global_query": jax.random.normal(key, (dims.model, dims.heads, dims.head))}


CASES = battery.cases()
PADDING, REPLACED = "padding against truncation", HIDDEN.format("kv_valid")
BITES = (
  Bite(ArenaLocal(block=3), "equals its oracle", "query", "honours kv_valid", CASES["block_local"]),
  Bite(ArenaLocal(block=3), "receptive field is as declared", r"query 0 (never )?reads key", "honours causal"),
  Bite(ArenaPadding(block=3), "honours kv_valid", REPLACED, "examples are independent"),
  Bite(ArenaPadding(block=3), "padding equals truncation", PADDING, "class in the values"),
  Bite(ArenaSinkhorn(), "equals its oracle", "query", "honours kv_valid", SINKHORN),
  Bite(UnsortedSinkhorn(), "equals its oracle", "query", "honours kv_valid", SINKHORN),
  Bite(UnsortedSinkhorn(), "every parameter acts", "the parameter sort changes nothing", "honours kv_valid"),
  Bite(DeafLinear(chunk=4), "honours kv_valid", REPLACED, "honours causal"),
  Bite(DeafLinear(chunk=4), "padding equals truncation", PADDING, "extend in any split"),
  Bite(DeafLinformer(rank=3), "honours kv_valid", REPLACED, "examples are independent"),
  Bite(DeafLinformer(rank=3), "padding equals truncation", PADDING, "class in the values"),
  Bite(DeafPerformer(features=8, chunk=4), "honours kv_valid", REPLACED, "honours causal"),
  Bite(DeafPerformer(features=8, chunk=4), "padding equals truncation", PADDING, "honours segments"),
  Bite(Biased(features=8, chunk=4), "honours bias", "changes nothing", "honours kv_valid"),
  Bite(DeafLsh(hashes=2, buckets=4), "honours kv_valid", REPLACED, "honours causal"),
  Bite(DeafLsh(hashes=2, buckets=4), "padding equals truncation", PADDING, "class in the values"),
  Bite(AheadLsh(hashes=2, buckets=4), "honours causal", HIDDEN.format("causal"), "honours kv_valid"),
  Bite(SharpLsh(hashes=2, buckets=4), "equals its oracle", "error", "honours causal", CASES["lsh"]),
  Bite(IdleLongformer(window=3), "every parameter acts", "global_query changes nothing", "honours causal"),
  Bite(Filled(), "rows of the map sum to 1", "rows of the map", "honours causal"),
  Bite(Filled(), "averages the values", "equal values", "examples are independent"),
)
