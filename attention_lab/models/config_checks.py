"""The numbers of a `ModelConfig`, checked once, each error naming its flag."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from attention_lab.attention import spec
from attention_lab.attention.base import Attention, Dims, Unsupported
from attention_lab.config import ModelConfig, nearest_hint

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
REMAT = {
  "none": None,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # not those of attention, which are T×S
  "full": jax.checkpoint_policies.nothing_saveable,
}
FLAG = "--config.model"
NORMS = ("layer", "rms")
PLACES = ("pre", "post")
MLPS = ("gelu", "swiglu")


def choose(flag: str, value: str, choices: Iterable[str]) -> str:
  """The `value`, if it is one of `choices`; else a ValueError naming the flag, the nearest choice and all of them."""
  choices = list(choices)
  if value in choices:
    return value
  raise ValueError(f"{flag}={value} is unknown{nearest_hint(value, choices)}; choices: {', '.join(choices)}")


def dtype(config: ModelConfig) -> Any:
  """The compute dtype."""
  return DTYPES[choose(f"{FLAG}.dtype", config.dtype, DTYPES)]


def remat(config: ModelConfig) -> Any:
  """What a layer keeps for its gradients, as a policy of `jax.checkpoint`; None = all that they need."""
  return REMAT[choose(f"{FLAG}.remat", config.remat, REMAT)]


def dims(config: ModelConfig, max_len: int) -> Dims:
  """The sizes of one attention layer. Raises ValueError for what does not fit or divide, or is unknown."""
  for name in ("layers", "width", "heads"):
    if getattr(config, name) < 1:
      raise ValueError(f"{FLAG}.{name}={getattr(config, name)} is less than 1")
  for name in ("kv_heads", "head_width", "mlp_width"):
    if getattr(config, name) < 0:
      raise ValueError(f"{FLAG}.{name}={getattr(config, name)} is negative; 0 means the default")
  if not 0 <= config.dropout < 1:
    raise ValueError(f"{FLAG}.dropout={config.dropout} is not a rate in [0, 1)")
  for name, choices in (("norm", NORMS), ("norm_place", PLACES), ("mlp", MLPS)):
    choose(f"{FLAG}.{name}", getattr(config, name), choices)
  if not config.head_width and config.width % config.heads:
    fix = f"give another of the two, or {FLAG}.head_width"
    raise ValueError(f"{FLAG}.heads={config.heads} does not divide {FLAG}.width={config.width}; {fix}")
  kv_heads = config.kv_heads or config.heads
  if config.heads % kv_heads:
    raise ValueError(f"{FLAG}.kv_heads={kv_heads} does not divide {FLAG}.heads={config.heads}; 0 means as many")
  head = config.head_width or config.width // config.heads
  return Dims(config.width, config.heads, kv_heads, head, head, max_len)


def variants(config: ModelConfig) -> tuple[Attention, ...]:
  """The variant of each layer; refuses fewer key heads where one does not group, and shared layers that differ."""
  layers = spec.layers(config.attention, config.layers)
  for variant in layers:
    if not variant.claims().supports_gqa and config.kv_heads not in (0, config.heads):
      why = f"{spec.to_string(variant)} needs as many of them as {FLAG}.heads={config.heads}"
      raise Unsupported(f"{FLAG}.kv_heads={config.kv_heads}: {why}; give {FLAG}.kv_heads=0")
  if config.shared_layers and len(set(layers)) > 1:
    why = f"{FLAG}.attention={config.attention} names several"
    raise ValueError(f"{FLAG}.shared_layers gives all layers one set of parameters and so one variant, but {why}")
  return layers
