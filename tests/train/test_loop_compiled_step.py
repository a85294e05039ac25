import dataclasses
import re

import jax
import numpy as np
import pytest

from attention_lab.data import pipeline
from attention_lab.data.buckets import Bucketed
from attention_lab.train import loop
from attention_lab.train.cost import batch_tokens


def bucketed(task):
  """Examples of 2 and of 3 tokens."""

  def grouped(split):
    return Bucketed(split, np.arange(len(split)) % 2 + 2, (2, 3), ("tokens",))

  splits = {name: grouped(split) for name, split in task.source.splits.items()}
  return dataclasses.replace(task, source=dataclasses.replace(task.source, splits=splits))


@pytest.mark.parametrize("seeds", [(0,), (0, 3)])
def test_each_shape_of_batch_is_compiled_once_and_said_once(seeds, tiny, config, one_device):
  lines, task = [], bucketed(tiny())
  results = loop.run(task, config(), None, mesh=one_device, seeds=seeds, log=lines.append)
  stream = pipeline.train_batches(task.source.splits["train"], 8, 0)
  shapes = list(dict.fromkeys(next(stream)["tokens"].shape for _ in range(8)))
  assert len(shapes) == 2
  messages = [line for line in lines if line.startswith("compiled for tokens")]
  shape = [*([2] if len(seeds) > 1 else []), *shapes[1]]
  assert len(messages) == 1
  assert re.fullmatch(rf"compiled for tokens {re.escape(str(shape))} in [\d.]+ s; 2 programs", messages[0])
  assert f"{8 * shapes[0][1] * len(seeds)} tokens per step" in lines[1]
  assert results[0]["compile_time"] > 0


def test_tokens_are_those_of_the_bucket(tiny, config):
  task = bucketed(tiny())
  split, plain = task.source.splits["train"], tiny().source.splits["train"]
  for index, tokens in ((0, 16), (1, 24)):
    batch = jax.tree.map(jax.numpy.asarray, split[np.full(8, index)])
    assert batch_tokens(batch, config(), 3, split) == tokens
  assert batch_tokens(batch, config(), 7, plain) == 56
