"""Name the class of a text, judged by accuracy.

Batches: those of `parts.sequences`; the first token is the class token where the tokenizer has one.
"""

import dataclasses
from typing import Any

import numpy as np
from jax.sharding import Mesh

from attention_lab import config as configs
from attention_lab.data import controls, folds, labelled
from attention_lab.data.dataset import Dataset
from attention_lab.models import bert
from attention_lab.tasks.base import LoadFn, Task, read
from attention_lab.tasks.parts import sequences

NAME = "text_classification"


@dataclasses.dataclass
class DataConfig(sequences.DataConfig):
  name: str = ""  # sst2 (the default, if no path is given), imdb_reviews, or any of TFDS with a text and a label
  path: str = ""  # a .csv, .tsv or .jsonl file, or a folder of train, validation and test, in place of a named dataset
  text_column: str = ""  # of a file or dataset; "" = the only text
  label_column: str = ""  # of a file or dataset; "" = the only label
  limit: int = 0  # examples of train that are used, drawn by a hash of their content; 0 = all


@dataclasses.dataclass
class Config(configs.Config):
  steps: int = 3000  # optimizer steps
  batch: int = 32  # examples per step, over all devices
  pretrained: str = ""  # workdir of a masked_language_modeling or language_modeling run to begin with
  model: sequences.ModelConfig = dataclasses.field(default_factory=sequences.ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)


def build(config: Config, workdir: str, mesh: Mesh | None = None, read: LoadFn = read) -> Task:
  """The task on `config.data`; the tokenizer is kept in `workdir`.

  Raises ValueError for what does not fit, naming the flag, and Unsupported for a variant that the model cannot use.
  """
  if config.model.types not in (0, bert.TYPES):
    why = f"a text has no types of tokens; give 0, or {bert.TYPES} for the arrays of a pre-trained BERT"
    raise ValueError(f"--config.model.types={config.model.types}: {why}")
  resolved = sequences.resolved_positions(config.model, NAME)
  reading = sequences.reading(config.data)
  source = read(labelled.load, config.data, workdir, reading, tokenizer_from=config.pretrained)
  source = folds.fold(source, config.data.folds, config.data.fold)
  return sequences.task(NAME, config, limited(source, config.data.limit), resolved, mesh=mesh)


def limited(source: Dataset, limit: int) -> Dataset:
  """As `sequences.limited`, with controls that have no more examples than the model."""
  part = sequences.limited(source, limit)
  if part is source:
    return source
  (train, known), (test, asked) = (_read(part.splits[split]) for split in ("train", "test"))
  return dataclasses.replace(part, controls=controls.of_texts(train, known, test, asked))


def _read(split: Any) -> tuple[list[str], np.ndarray]:
  """Texts and labels."""
  size = len(split)
  return [split.describe(i) for i in range(size)], split[np.arange(size)]["label"]
