"""Name the class of a long sequence, by accuracy: four tasks in the manner of Long Range Arena (Tay et al. 2021).

  listops        nested MIN, MAX, MED and SM of digits; what is the result? Generated, as published
  imdb_bytes     the bytes of a review of a film: is it a good one?
  pixels         the grey values of an image, row by row: what does it show?
  same_article   two passages of Wikipedia: are they of one article?

Batches: those of `parts.sequences`, same_article's with types.
"""

import dataclasses
from collections.abc import Callable

from jax.sharding import Mesh

from attention_lab import config as configs
from attention_lab.data import article_matching, folds, labelled, listops, pixels
from attention_lab.data.dataset import Dataset, validate_name
from attention_lab.data.images import IMAGES
from attention_lab.tasks.base import LoadFn, Task, read
from attention_lab.tasks.parts import sequences

NAME = "long_range"
LENGTHS = {"listops": 512, "imdb_bytes": 1024, "same_article": 512}  # tokens, where none are asked for
TOKENIZER, VOCABULARY = "wordpiece", 8000  # of same_article


@dataclasses.dataclass
class ModelConfig(sequences.ModelConfig):
  types: int = 0  # kinds of segments; 0 = as the data have: 2 of same_article, none of the others


@dataclasses.dataclass
class DataConfig(configs.DataConfig):
  name: str = ""  # listops (the default), imdb_bytes, pixels or same_article
  path: str = ""  # of same_article: a folder of texts of one's own, in place of WikiText-2
  length: int = 0  # T, tokens per example; 0 = 512 of listops and same_article, 1024 of imdb_bytes, all pixels
  shortest: int = 0  # of listops: tokens of an expression, at least; 0 = a quarter of length, as published
  depth: int = 10  # of listops: levels of an expression, at most
  arguments: int = 10  # of listops: arguments of an operator, at most
  train: int = 96_000  # of listops: examples for training
  validation: int = 2_000  # of listops: examples for validation
  test: int = 2_000  # of listops: examples for the final test
  images: str = "fashion_mnist"  # of pixels: fashion_mnist, digits, or any dataset of TFDS with images and labels
  side: int = 0  # of pixels: images are scaled to side x side; 0 = as they are
  tokenizer: str = ""  # of same_article: byte, char, word, bpe or wordpiece; "" = wordpiece
  vocabulary: int = 0  # of same_article: ids of the tokenizer, at most; 0 = 8000
  buckets: bool = True  # batches of examples of similar length, one program for each of a few widths


@dataclasses.dataclass
class OptimizerConfig(configs.OptimizerConfig):
  learning_rate: float = 1e-3  # peak, reached after the warm-up


@dataclasses.dataclass
class Config(configs.Config):
  steps: int = 3000  # optimizer steps
  batch: int = 32  # examples per step, over all devices
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)


def build(config: Config, workdir: str, mesh: Mesh | None = None, read: LoadFn = read) -> Task:
  """The task on `config.data`; the tokenizer of texts is kept in `workdir`.

  Folds deal examples; of same_article a passage may then stand in a pair of either part. Raises ValueError for what
  does not fit, naming the flag, and Unsupported for a variant that the model cannot use.
  """
  resolved = sequences.resolved_positions(config.model, NAME)
  source = folds.fold(read(load, config.data, workdir), config.data.folds, config.data.fold)
  settings = dataclasses.replace(config, model=sequences.with_types(config.model, source.metadata, source.name))
  return sequences.task(NAME, settings, source, resolved, mesh=mesh)


def load(data: DataConfig, workdir: str) -> Dataset:
  """The examples that `data` means, before they are cut into folds; ValueError for a field that they do not read."""
  named = dataclasses.replace(data, path="") if data.name == "same_article" else data
  name = validate_name(named, tuple(READ))
  if not name:
    raise ValueError(f"--config.data.path={data.path}: only texts have files; give --config.data.name=same_article too")
  function, reads = READ[name]
  default = type(data)()
  for field in dataclasses.fields(data):
    value, usual = getattr(data, field.name), getattr(default, field.name)
    if field.name not in EVERY | reads and value != usual:
      fix = f"leave it at {usual!r}; it reads {', '.join(sorted(EVERY | reads))}"
      raise ValueError(f"--config.data.{field.name}={value} means nothing to {name}: {fix}")
  return function(dataclasses.replace(data, length=data.length or LENGTHS.get(name, 0)), workdir)


def _expressions(data: DataConfig, workdir: str) -> Dataset:
  del workdir
  sizes = (data.train, data.validation, data.test)
  shape = {"depth": data.depth, "arguments": data.arguments, "shortest": data.shortest}
  return listops.generate(data.length, *sizes, **shape)


def _reviews(data: DataConfig, workdir: str) -> Dataset:
  reading = labelled.Reading(tokenizer="byte", vocabulary=0, length=data.length)
  return labelled.load(_plain(data, "imdb_reviews"), workdir, reading)


def _images(data: DataConfig, workdir: str) -> Dataset:
  del workdir
  if not data.images:
    raise ValueError(f"--config.data.images is empty; give {', '.join(IMAGES)}, or another name of TFDS")
  try:
    return pixels.load(_plain(data, data.images), data.side)
  except ValueError as error:
    raise ValueError(str(error).replace("--config.data.name=", "--config.data.images=")) from None


def _passages(data: DataConfig, workdir: str) -> Dataset:
  read = dataclasses.replace(data, tokenizer=data.tokenizer or TOKENIZER, vocabulary=data.vocabulary or VOCABULARY)
  return article_matching.load(_plain(data, ""), workdir, sequences.reading(read))


def _plain(data: DataConfig, name: str) -> configs.DataConfig:
  """What a loader reads of `data`."""
  return configs.DataConfig(name=name, path=data.path, dir=data.dir, length=data.length)


EVERY = frozenset({"name", "dir", "folds", "fold", "buckets"})  # fields that every dataset may be given
READ: dict[str, tuple[Callable[[DataConfig, str], Dataset], frozenset[str]]] = {
  "listops": (
    _expressions,
    frozenset({"length", "shortest", "depth", "arguments", "train", "validation", "test"}),
  ),
  "imdb_bytes": (_reviews, frozenset({"length"})),
  "pixels": (_images, frozenset({"images", "side"})),
  "same_article": (_passages, frozenset({"path", "length", "tokenizer", "vocabulary"})),
}
