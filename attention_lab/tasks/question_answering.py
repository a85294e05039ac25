"""Answer a question: by one of the answers seen (bAbI, judged by accuracy), or by a span of the context.

Batches of bAbI: those of `parts.sequences` with types, a sentence's number counted back from the question, and group
int32 [B], the task; by sentences, tokens int32 [B, T, W]. Batches of spans: tokens and types int32 [B, T], length,
start, end and example int32 [B].
"""

import dataclasses
from collections.abc import Mapping
from typing import cast

import numpy as np
from jax.sharding import Mesh

from attention_lab import config as configs
from attention_lab.data import babi, prepared
from attention_lab.data import spans as spans_data
from attention_lab.data.dataset import Arrays, Dataset
from attention_lab.tasks.base import EvalResult, LoadFn, Task, read
from attention_lab.tasks.parts import classification, sequences, span_answers

NAME = "question_answering"
NAMES = ("babi", "squad", "xquad/en")  # others of TFDS are read by their features
SOLVED = 0.95  # accuracy from which a task of bAbI counts as solved (Weston et al. 2015)


@dataclasses.dataclass
class ModelConfig(sequences.ModelConfig):
  layers: int = 3  # L
  width: int = 128  # D, the model width
  types: int = 0  # kinds of segments; 0 = as the data have: 64 of bAbI (question, sentences by age), 2 of spans


@dataclasses.dataclass
class DataConfig(sequences.DataConfig):
  name: str = ""  # babi (the default), squad, xquad/en, or any dataset of TFDS with question, context and answers
  path: str = ""  # stays empty: questions are read from `dir`
  task: int = 0  # of bAbI: 1 to 20, or 0 for all jointly
  sentences: bool = False  # of bAbI: a vector for each sentence, as memory networks read it, in place of its words
  length: int = 256  # T, tokens per example; a story loses its oldest sentences, a context is cut into windows
  tokenizer: str = ""  # of spans: byte, char, word, bpe or wordpiece; "" = wordpiece; bAbI is read by words
  vocabulary: int = 0  # of spans: ids of the tokenizer, at most; 0 = 8000


@dataclasses.dataclass
class OptimizerConfig(configs.OptimizerConfig):
  learning_rate: float = 1e-3  # peak, reached after the warm-up


@dataclasses.dataclass
class Config(configs.Config):
  steps: int = 6000  # optimizer steps
  batch: int = 64  # examples per step, over all devices
  pretrained: str = ""  # of spans: workdir of a masked_language_modeling run whose parameters are taken over
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)


def build(config: Config, workdir: str, mesh: Mesh | None = None, read: LoadFn = read) -> Task:
  """The task on `config.data`; the tokenizer of spans is kept in `workdir`.

  Both loaders cut the folds that `config.data` asks for, by stories and by articles. Raises ValueError for what does
  not fit, naming the flag, and Unsupported for a variant that the model cannot use.
  """
  return (stories if config.data.name in ("", "babi") else spans)(config, workdir, mesh, read)


def stories(config: Config, workdir: str, mesh: Mesh | None = None, read: LoadFn = read) -> Task:
  """The tasks of bAbI: the answer is a class. Nothing is kept in `workdir`."""
  del workdir
  _idle(config, ("data.tokenizer", "data.vocabulary", "pretrained"), "bAbI, whose words are a vocabulary of its own")
  resolved = sequences.resolved_positions(config.model, NAME)
  source = read(babi.load, config.data, config.data.task, config.data.sentences)
  settings = dataclasses.replace(config, model=sequences.with_types(config.model, source.metadata, "bAbI"))
  task = sequences.task(NAME, settings, source, resolved, mesh=mesh)
  return dataclasses.replace(task, judge=lambda predictions, split: judge(source, predictions, split))


def spans(config: Config, workdir: str, mesh: Mesh | None = None, read: LoadFn = read) -> Task:
  """Questions whose answers are spans of their contexts, by two pointers on an encoder."""
  data = config.data
  _idle(config, ("data.task", "data.sentences"), "spans, which are one task, and read by words")
  settings = dataclasses.replace(
    config, model=sequences.with_types(config.model, span_answers.METADATA, "a row of spans")
  )
  resolved = span_answers.resolved_positions(settings.model, NAME)
  if not data.path:
    prepared.check(data.name, data.dir, NAMES)
  data = dataclasses.replace(data, tokenizer=data.tokenizer or "wordpiece", vocabulary=data.vocabulary or 8000)
  source = read(spans_data.load, data, workdir, sequences.reading(data), config.pretrained)
  return span_answers.task(NAME, settings, source, resolved, mesh=mesh)


def judge(source: Dataset, predictions: Mapping[str, np.ndarray], split: str) -> EvalResult:
  """How many tasks of bAbI are solved, the error of each, and the wrong answers with their task."""
  groups = cast(Arrays, source.splits[split]).arrays["group"]
  right = predictions["probabilities"].argmax(-1) == predictions["label"]
  rows, solved = {}, 0
  for number in np.unique(groups).tolist():
    answers = right[groups == number]
    rows[babi.TASKS[number - 1]] = {"task": number, "examples": len(answers), "error": float(1 - answers.mean())}
    solved += bool(answers.mean() >= SOLVED)
  wrong = classification.judge(source, predictions, split).errors
  errors = [row | {"task": babi.TASKS[groups[row["index"]] - 1]} for row in wrong]
  return EvalResult({"tasks_solved": float(solved)}, {"error_by_task": rows}, errors)


def _idle(config: Config, names: tuple[str, ...], what: str) -> None:
  """Raises ValueError for a setting that is given and means nothing here."""
  settings, default = configs.flatten(config), configs.flatten(Config())
  for name in (f"config.{name}" for name in names):
    if settings[name] != default[name]:
      raise ValueError(f"--{name}={settings[name]} means nothing to {what}; leave it out")
