"""Suites, comparisons that are asked for by name: tasks with their settings, rows that span the families, and flags.

  first        a look at three small tasks: what is run when nothing is named
  recall       multi-query associative recall over widths: accuracy against decoding state (Arora et al. 2023)
  mechanisms   one mechanism at a time, after MAD and RULER, with the length up to which each variant is effective
  vision       Fashion-MNIST and digits
  language     three corpora
  long_range   four long tasks, and how far a variant must read to do them

Each has a size `cpu`, for two cores, and all but `first` have `gpu`, nearer to what is published. What is given beside
--suite goes before the suite's own.
"""

import dataclasses
from collections.abc import Mapping

from attention_lab.config import nearest_hint


@dataclasses.dataclass(frozen=True)
class Suite:
  """A comparison with a name.

  Attributes:
    tasks: the settings NAME=VALUE of each task's `config`, by BINARY:DATASET.
    rows: the rows, as `row_spec` reads them.
    flags: values of flags of `experiments.compare`, by name.
  """

  tasks: Mapping[str, tuple[str, ...]]
  rows: tuple[str, ...]
  flags: Mapping[str, str | int | bool] = dataclasses.field(default_factory=dict)


def load(name: str, size: str) -> Suite:
  """The suite of a name and size; ValueError, with the choices, for one that does not exist."""
  for flag, value, choices in (("suite", name, SUITES), ("size", size, SUITES.get(name, ()))):
    if value not in choices:
      raise ValueError(f"--{flag}={value} is unknown{nearest_hint(value, choices)}; choices: {', '.join(choices)}")
  return SUITES[name][size]


def _widths(rows: tuple[str, ...], widths: tuple[int, ...]) -> tuple[str, ...]:
  return tuple(f"{row}@width={width}" for row in rows for width in widths)


RECALL = (
  *("softmax", "local(window=8)", "pooling", "linear", "taylor", "performer(features=32)", "retention"),
  *("gated_linear", "ssd", "delta_rule", "gated_delta", "local(window=8)|taylor"),
)
CAUSAL = (
  *("softmax", "alibi", "local(window=8)", "longformer(window=8)", "sigmoid", "linear", "performer", "retention"),
  *("ssd", "gated_delta", "long_convolution", "pooling@positions=none"),
)
VISION = (
  *("softmax", "relative", "cosine", "local(window=8)", "axial", "swin(window=2)|swin(window=2, shift=1)"),
  *("neighbourhood", "linear", "linformer(rank=8)", "nystrom(landmarks=8)", "sigmoid", "fourier", "token_mixer"),
  "pooling",
)
LANGUAGE = ("softmax", "local(window=32)", "linear", "gated_delta", "local(window=32)|gated_delta", "pooling")
LONG = ("softmax", "local(window=64)", "linear", "linformer(rank=64)", "fourier", "pooling")
PROBE = ("local(window=2)", "local(window=5)", "local(window=17)")  # the locality probe, beside local(window=64)
GENERATED = (
  *("in_context", "fuzzy", "noisy", "selective_copy", "compression", "memorization", "induction", "parity"),
  *("needle", "multi_key", "multi_value", "multi_query", "variable_tracking", "frequency"),
)

LONGER = dict.fromkeys(  # settings of the tests of the effective length
  ("in_context", "noisy", "induction", "needle", "multi_key", "multi_query"), ("data.length=64", "data.longest=512")
)
SMALL = ("model.width=32", "steps=800", "data.train=50000")
EASIER = {  # sizes below the dataset's own, so that small models learn it in minutes
  "fuzzy": ("data.items=3",),
  "noisy": ("data.items=4",),
  "multi_key": ("data.items=2",),
  "multi_query": ("data.items=3",),
  **dict.fromkeys(("in_context", "induction", "needle"), ("data.longest=128",)),
}
BRIEF = ("evaluate_every=100", "model.dropout=0")  # few evaluations, where validation takes as long as training
LISTOPS = ("data.train=20000", "data.validation=1000", "data.test=1000")
DIGITS, DOCS = "image_classification:digits", "language_modeling:python_docs"
SUITES: Mapping[str, Mapping[str, Suite]] = {
  "first": {
    "cpu": Suite(
      {"recall": (), DIGITS: ("steps=500",), DOCS: ("steps=500", "optimizer.learning_rate=0.01")},
      ("softmax", "local(window=4)", "linear", "pooling"),
    )
  },
  "recall": {
    "cpu": Suite(
      {"recall": ()},
      _widths(RECALL, (16, 32, 64)),
      {"positive": "softmax@width=64", "seeds": "9"},
    ),
    "gpu": Suite(
      {
        "recall": (
          *("data.length=256", "data.vocabulary=8192", "data.pairs=64", "data.train=100000", "model.heads=1"),
          *("steps=50000", "batch=64", "optimizer.learning_rate=1e-3"),
        )
      },
      _widths(RECALL, (64, 128, 256, 512)),
      {"positive": "softmax@width=512", "seeds": "3", "trials": 4},
    ),
  },
  "mechanisms": {
    "cpu": Suite(
      {f"mechanisms:{name}": (*SMALL, *EASIER.get(name, ())) for name in GENERATED},
      CAUSAL,
      {"seeds": "3", "second_chance": False},
    ),
    "gpu": Suite(
      {
        f"mechanisms:{name}": ("model.width=128", "steps=10000", "batch=128", *LONGER.get(name, ()))
        for name in GENERATED
      },
      CAUSAL,
      {"seeds": "5", "trials": 4},
    ),
  },
  "vision": {
    "cpu": Suite(
      {
        "image_classification:fashion_mnist": ("model.patch=4", "steps=600"),
        DIGITS: (),
      },
      VISION,
      {"seeds": "3"},
    ),
    "gpu": Suite(
      {
        "image_classification:fashion_mnist": ("model.patch=2", "model.layers=6", "model.width=192", "steps=20000"),
        "image_classification:cifar10": ("model.patch=4", "model.layers=6", "model.width=192", "steps=40000"),
      },
      VISION,
      {"seeds": "5", "trials": 4, "match": "parameters"},
    ),
  },
  "language": {
    "cpu": Suite(
      {
        DOCS: (),
        "language_modeling:tiny_shakespeare": ("data.tokenizer=char", "data.vocabulary=0"),
        "language_modeling:wikitext2": ("data.vocabulary=2048",),
      },
      LANGUAGE,
      {"seeds": "3"},
    ),
    "gpu": Suite(
      {
        "language_modeling:wikitext2": (
          *("data.tokenizer=bpe", "data.vocabulary=8192", "data.length=1024", "model.layers=12", "model.width=512"),
          *("model.heads=8", "model.dropout=0.2", "steps=20000", "batch=32", "optimizer.learning_rate=6e-4"),
        )
      },
      LANGUAGE,
      {"seeds": "5", "trials": 4, "match": "parameters"},
    ),
  },
  "long_range": {
    "cpu": Suite(
      {
        "long_range:listops": ("data.length=256", "steps=400", *BRIEF, *LISTOPS),
        "long_range:imdb_bytes": ("data.length=256", "steps=300", *BRIEF),
        "long_range:pixels": ("data.side=14", "steps=300", *BRIEF),
        "long_range:same_article": ("data.length=256", "steps=300", *BRIEF),
      },
      (*LONG, *PROBE),
      {"seeds": "3", "second_chance": False},
    ),
    "gpu": Suite(
      {
        "long_range:listops": ("data.length=1999", "data.shortest=501", "steps=5000"),
        "long_range:imdb_bytes": ("data.length=4096", "steps=20000"),
        "long_range:pixels": ("steps=20000",),
        "long_range:same_article": ("data.length=4096", "steps=5000"),
      },
      (*LONG, *PROBE),
      {"seeds": "5", "trials": 4},
    ),
  },
}
