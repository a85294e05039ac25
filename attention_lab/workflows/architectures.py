"""The columns of the matrix: each architecture of the binaries, tiny, with its task's loss and one batch.

Sizes: width 16 in 2 heads (the residual network's first stage 8), texts of 12 tokens of which the second is shorter,
images of 8×8 pixels in patches of 2×2. A variant on a grid takes the image's, where it can: its own is left out.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from attention_lab.attention.base import Attention
from attention_lab.attention.families.gridded import OnGrid
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions
from attention_lab.config import ModelConfig
from attention_lab.models import chunked_cross_entropy, classifier, config_checks, vision
from attention_lab.models.bert import Bert
from attention_lab.models.classifier import ClassifierConfig
from attention_lab.models.functional import Functional, Params, functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.models.vision import VisionConfig
from attention_lab.tasks import image_classification, language_modeling, masked_language_modeling
from attention_lab.tasks.base import Batch, total_loss
from attention_lab.tasks.parts import classification, sequences
from attention_lab.workflows.matrix import Architecture, FindMissing, MissingCapability

# Tokens of the vocabulary, tokens of a text, classes, pixels and channels of an image, side of a patch in pixels.
VOCABULARY, LENGTH, CLASSES, IMAGE, PATCH = 24, 12, 3, (8, 8, 1), 2
SPECIAL = {  # tokens by their meaning
  "end_of_text": 0,
  "class": 1,
  "separator": 2,
  "mask": 3,
  "unknown": 4,
}
SMALL: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2}
REGISTERS = 2  # tokens beside the class token
IMAGE_GRID = Positions(grid=(2, 2))  # rows and columns of an image's tokens

CAUSAL = MissingCapability("no causal mask", "'causal'")
PREFIX = MissingCapability("no prefix mask", "'prefix'")
ONE_WAY = MissingCapability("causal by construction", "causal by construction")
CROSS = MissingCapability("no cross-attention", "cross-attention")
GRID = MissingCapability("no grid of rows and columns", "grid")


def _text_batch() -> Batch:
  rng = np.random.default_rng(0)
  tokens = rng.integers(5, VOCABULARY, (2, LENGTH)).astype(np.int32)
  tokens[1, 7:] = 0
  types = np.arange(LENGTH)[None] >= np.array([[6], [4]])
  numbers = {"length": [12, 7], "label": [0, 2], "next": [1, 0]}
  batch = {"tokens": tokens, "types": types} | numbers
  return {name: jnp.asarray(values, jnp.int32) for name, values in batch.items()}


def _label_batch() -> Batch:
  return {name: values for name, values in _text_batch().items() if name in ("tokens", "length", "label")}


def _prefix_batch() -> Batch:
  """Texts that go on: one token more than the model reads, and how many of them are the prefix."""
  tokens = np.random.default_rng(0).integers(0, VOCABULARY, (2, LENGTH + 1))
  return {"tokens": jnp.asarray(tokens, jnp.int32), "prefix": jnp.asarray([3, 6], jnp.int32)}


def _image_batch() -> Batch:
  pixels = np.random.default_rng(0).uniform(size=(2, *IMAGE))
  return {"image": jnp.asarray(pixels, jnp.float32), "label": jnp.asarray([0, 2], jnp.int32)}


def _language_model(attention: str) -> Functional:
  config = ModelConfig(attention=attention, **SMALL)
  return functional(lambda key: TransformerLM(config, VOCABULARY, LENGTH, key=key))


def _bert(attention: str) -> Functional:
  config = ModelConfig(attention=attention, **SMALL)
  return functional(lambda key: Bert(config, VOCABULARY, LENGTH, key=key))


def _classifier(fields: dict[str, Any], attention: str) -> Functional:
  config = ClassifierConfig(attention=attention, **SMALL | fields)
  return functional(lambda key: classifier.build(config, VOCABULARY, LENGTH, CLASSES, key=key))


def _vision(fields: dict[str, Any], attention: str) -> Functional:
  config = VisionConfig(attention=attention, patch=PATCH, **SMALL | fields)
  return functional(lambda key: vision.build(config, IMAGE, CLASSES, key=key))


def _prefix_loss(model: Functional, params: Params, batch: Batch, key: PRNGKeyArray) -> tuple[Array, dict[str, Array]]:
  """Nats per token after the prefix, which is read in both directions (Raffel et al. 2020, section 3.2.1)."""
  module, tokens, prefix = model.bind(params), batch["tokens"], batch["prefix"]
  hidden = module.hidden(tokens[:, :-1], mask=Mask(causal=True, prefix=prefix), key=key)
  after = (jnp.arange(LENGTH, dtype=jnp.int32)[None] >= prefix[:, None] - 1).astype(jnp.float32)
  nll = chunked_cross_entropy.nll_sum(module.output_head(), hidden.logits, tokens[:, 1:], after)
  return total_loss(nll / jnp.sum(after), hidden)


def _masked_loss(model: Functional, params: Params, batch: Batch, key: PRNGKeyArray) -> tuple[Array, dict[str, Array]]:
  return masked_language_modeling.loss(model, SPECIAL, params, batch, key)


def _label_loss(forward: classification.Forward) -> Callable[..., tuple[Array, dict[str, Array]]]:
  return lambda model, *args: classification.loss(model, forward, *args)


def _no_causal_mask(variant: Attention) -> MissingCapability | None:
  return None if "causal" in variant.claims().masks else CAUSAL


def _no_prefix_mask(variant: Attention) -> MissingCapability | None:
  return _no_causal_mask(variant) or (None if "prefix" in variant.claims().masks else PREFIX)


def _causal_only(variant: Attention) -> MissingCapability | None:
  return ONE_WAY if variant.claims().requires_causal else None


def _no_cross_attention(variant: Attention) -> MissingCapability | None:
  return _causal_only(variant) if variant.claims().cross else CROSS


def _no_grid(variant: Attention) -> MissingCapability | None:
  bound = isinstance(variant, OnGrid) and (getattr(variant, variant.field) or variant.sizes(IMAGE_GRID) is None)
  return GRID if bound else _causal_only(variant)


def on_image(variant: Attention) -> Attention:
  """A variant without the grid of its own, if that of an image can stand for it."""
  if not isinstance(variant, OnGrid):
    return variant
  bare = dataclasses.replace(variant, **{variant.field: 0})
  return variant if bare.sizes(IMAGE_GRID) is None else bare


def _unread(variant: Attention) -> tuple[str, ...]:
  """What the class token, which is all that is classified, does not reach in one layer: registers, patches."""
  if isinstance(variant, OnGrid):
    return ()  # tokens before a grid read everything
  first, tokens = 1 + REGISTERS, 1 + REGISTERS + (IMAGE[0] // PATCH) * (IMAGE[1] // PATCH)
  dims = config_checks.dims(VisionConfig(**SMALL), tokens)
  params = variant.init(jax.random.key(0), dims)
  pattern = variant.pattern(params, jnp.zeros((1,), jnp.int32), jnp.arange(tokens, dtype=jnp.int32))
  seen = np.broadcast_to(np.asarray(pattern), tokens)
  parts = {"registers": seen[1:first], "patches": seen[first:]}
  return tuple(name for name, reached in parts.items() if not np.any(reached))


def _text_classifier(name: str, missing: FindMissing, **fields: Any) -> Architecture:
  build, loss = functools.partial(_classifier, fields), _label_loss(sequences.forward)
  return Architecture(name, build, loss, _label_batch, missing, causal=missing is _no_causal_mask)


def _image_classifier(name: str, missing: FindMissing, **fields: Any) -> Architecture:
  build, loss = functools.partial(_vision, fields), _label_loss(image_classification.forward)
  return Architecture(name, build, loss, _image_batch, missing, on_image)


ARCHITECTURES = {
  architecture.name: architecture
  for architecture in (
    Architecture("decoder", _language_model, language_modeling.loss, _prefix_batch, _no_causal_mask, causal=True),
    Architecture("prefix LM", _language_model, _prefix_loss, _prefix_batch, _no_prefix_mask, causal=True),
    Architecture("BERT", _bert, _masked_loss, _text_batch, _causal_only),
    _text_classifier("encoder classifier", _causal_only, architecture="encoder"),
    _text_classifier("decoder classifier", _no_causal_mask, architecture="decoder"),
    _text_classifier("LSTM, attention pooling", _no_cross_attention, architecture="lstm", pooling="attention"),
    _image_classifier("ViT, mean", _causal_only),
    dataclasses.replace(
      _image_classifier("ViT, class token, registers", _causal_only, pooling="cls", registers=REGISTERS), unread=_unread
    ),
    _image_classifier("hierarchical ViT", _no_grid, architecture="hierarchical", layers=2),
    _image_classifier("ResNet, non-local", _causal_only, architecture="resnet", block="non_local", width=8),
  )
}
