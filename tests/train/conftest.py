"""A task that trains in milliseconds, with parameters of every kind that a real model has."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.config import Config
from attention_lab.data.dataset import Arrays, Dataset
from attention_lab.mesh import make_mesh
from attention_lab.models.chunked_cross_entropy import cross_entropy
from attention_lab.models.functional import Functional
from attention_lab.tasks.base import Task

VOCABULARY, D, N, H, F, CLASSES = 16, 8, 2, 4, 16, 4


class Tiny(Functional):
  """A pooled embedding through gated heads and an MLP."""

  undecayed = frozenset()

  def init(self, key):
    numbers = 0.5 * jax.random.normal(key, (7, VOCABULARY * D))  # drawn at once: each draw takes long to compile
    rows = iter(range(7))
    normal = lambda *shape: numbers[next(rows), : math.prod(shape)].reshape(shape)
    fixed = {"per_head": {"slopes": jnp.arange(1.0, N + 1)}, "order": jnp.arange(D)[::-1]}
    query = {"kernel": normal(D, N, H), "bias": jnp.zeros((N, H))}
    return {
      "tokens": {"embedding": normal(VOCABULARY, D)},
      "attention": {"query": query, "out": {"kernel": normal(N, H, D)}, "params": {"fixed": fixed}},
      "norm": {"scale": jnp.ones(D)},
      "mlp": {"up": {"kernel": normal(D, F), "bias": jnp.zeros(F)}, "down": {"kernel": normal(F, D)}},
      "head": {"kernel": normal(D, CLASSES)},
    }

  def apply(self, params, tokens, key=None):
    frozen, mlp = params["attention"]["params"]["fixed"], params["mlp"]
    x = jnp.mean(params["tokens"]["embedding"][tokens], axis=1)[:, frozen["order"]] * params["norm"]["scale"][None]
    if key is not None:
      x = x * jax.random.bernoulli(key, 0.8, x.shape)
    q = (
      jnp.einsum("BD,DNH->BNH", x, params["attention"]["query"]["kernel"]) + params["attention"]["query"]["bias"][None]
    )
    heads = jnp.tanh(q * frozen["per_head"]["slopes"][None, :, None])
    x = x + jnp.einsum("BNH,NHD->BD", heads, params["attention"]["out"]["kernel"])
    x = x + jax.nn.gelu(x @ mlp["up"]["kernel"] + mlp["up"]["bias"][None]) @ mlp["down"]["kernel"]
    return x @ params["head"]["kernel"]


def build(*, dropout=True, poisoned=()):
  """The task; the losses of training examples in `poisoned` are not numbers."""
  model = Tiny(lambda key: None)

  def nats(params, batch, key=None):
    return cross_entropy(model.apply(params, batch["tokens"], key), batch["label"]) * batch["factor"]

  def score(params, batch):
    logits, weight = model.apply(params, batch["tokens"]), batch["weight"]
    right = (jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32)
    nll = cross_entropy(logits, batch["label"])
    return {"nll": jnp.sum(nll * weight), "correct": jnp.sum(right * weight), "examples": jnp.sum(weight)}

  def summarize(sums):
    return {"loss": sums["nll"] / sums["examples"], "accuracy": sums["correct"] / sums["examples"]}

  return Task(
    name="tiny",
    source=Dataset("tiny", {name: _split(name, poisoned) for name in ("train", "validation", "test")}, {}, {}, {}),
    model=model,
    loss=lambda params, batch, key: (jnp.mean(nats(params, batch, key if dropout else None)), {}),
    score=score,
    summarize=summarize,
    primary="accuracy",
    higher_is_better=True,
    tokens_per_example=3,
    chance=1 / CLASSES,
    resolved_positions="none",
  )


def _split(name, poisoned):
  size = {"train": 52, "validation": 21, "test": 9}[name]
  tokens = np.random.default_rng(size).integers(0, VOCABULARY, (size, 3), dtype=np.int32)
  factor = np.ones(size, np.float32)
  if name == "train":
    factor[list(poisoned)] = np.nan
  return Arrays({"tokens": tokens, "label": (tokens.sum(axis=1) % CLASSES).astype(np.int32), "factor": factor})


def configure(**changes):
  """8 steps of 8 examples on one device; `section__field=value` sets a nested field."""
  config = Config(steps=8, batch=8)
  config.optimizer.warmup, config.mesh.data = 2, 1
  for name, value in changes.items():
    *path, last = name.split("__")
    target = config
    for part in path:
      target = getattr(target, part)
    assert last in {field.name for field in dataclasses.fields(target)}
    setattr(target, last, value)
  return config


@pytest.fixture(scope="session")
def tiny():
  return build


@pytest.fixture(scope="session")
def config():
  return configure


@pytest.fixture(scope="session")
def one_device():
  return make_mesh(configure().mesh, jax.devices()[:1])
