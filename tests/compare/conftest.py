"""A comparison that looks like a real one: 3 tasks, 5 variants (one cannot be causal), 3 seeds, seeded noise."""

import types

import numpy as np
import pytest

from attention_lab.compare.report import tables
from attention_lab.compare.schedule import grid
from attention_lab.results import records

SPECS = ("softmax", "local(window=16)", "linear", "pooling", "linformer(rank=16)")
SEEDS = (0, 1, 2)
SETTINGS = {
  "recall": {"config.steps": 1000, "config.batch": 64},
  "image_classification": {"config.steps": 600, "config.batch": 64},
  "language_modeling": {"config.steps": 800, "config.batch": 16},
}
# Of each task: the metric, then the mean and the noise of each variant's final score.
TASKS = {
  "recall": {
    "facts": {"primary": "accuracy", "higher_is_better": True, "chance": 0.0156, "controls": {}},
    "start": 0.02,
    "means": (0.9985, 0.228, 0.71, 0.031, None),
    "noises": (0.0008, 0.006, 0.09, 0.002, None),
  },
  "image_classification": {
    "facts": {"primary": "accuracy", "higher_is_better": True, "chance": 0.1, "controls": {}},
    "start": 0.1,
    "means": (0.9712, 0.9694, 0.9622, 0.881, 0.9655),
    "noises": (0.004, 0.004, 0.004, 0.006, 0.005),
  },
  "language_modeling": {
    "facts": {
      "primary": "bits_per_byte",
      "higher_is_better": False,
      "chance": 8.0,
      "controls": {"bigram": 3.41, "5-gram": 2.263},
    },
    "start": 6.5,
    "means": (2.318, 2.301, 2.402, 2.871, None),
    "noises": (0.012, 0.012, 0.02, 0.02, None),
  },
}
# Of each variant: parameters, FLOPs per token, seconds a step, memory in units of 38 MB.
COSTS = (
  (104_704, 655_360, 0.031, 1.0),
  (104_704, 471_040, 0.024, 0.8),
  (104_704, 430_080, 0.027, 0.9),
  (71_936, 280_064, 0.017, 0.7),
  (108_800, 481_280, 0.026, 0.9),
)


def make_rows(seeds=SEEDS, commit="3f1c2ab9d0e1"):
  """Rows of every task, variant and seed, as the file of results holds them."""
  return [row for task in TASKS for index in range(len(SPECS)) for row in _variant_rows(task, index, seeds, commit)]


def write_workdir(folder, seeds=SEEDS):
  """A workdir with grid and results, without reports."""
  grid.register(folder, grid.plan(SETTINGS, SPECS, seeds))
  for row in make_rows(seeds):
    records.append(folder / "results.jsonl", row)
  return folder


@pytest.fixture(scope="session")
def fake():
  """The generator itself, for tests that vary it."""
  return types.SimpleNamespace(
    make_rows=make_rows, write_workdir=write_workdir, specs=SPECS, seeds=SEEDS, settings=SETTINGS
  )


@pytest.fixture
def rows():
  return make_rows()


@pytest.fixture
def workdir(tmp_path):
  return write_workdir(tmp_path)


@pytest.fixture
def table_of():
  """Builds the one table of rows given as name -> (scores by seed, fields of each of its rows)."""
  return make_table


def make_table(rows, higher=True, chance=0.1, **shared):
  """A table of one task without noise of its own; `shared` are fields of every row."""
  fields = {"task": "recall", "status": "done", "reason": "", "primary": "accuracy", "controls": {}, "command": "run"}
  fields |= {"higher_is_better": higher, "chance": chance, "curve": [], **shared}
  (table,) = tables.build(
    fields | {"attention": name, "seed": seed, "metrics": {"accuracy": score}} | row
    for name, (scores, row) in rows.items()
    for seed, score in enumerate(scores)
  )
  return table


def _variant_rows(task, index, seeds, commit):
  rows = []
  for seed in seeds:
    row = _identity(task, SPECS[index], seed, commit)
    if TASKS[task]["means"][index] is None:
      reason = "linformer is not causal (it mixes keys of all positions): use it in an encoder"
      rows.append(row | {"status": "refused", "reason": reason})
    else:
      rows.append(row | _measured(task, index, seed))
  return rows


def _identity(task, spec, seed, commit):
  config = {"config.seed": seed, "config.model.attention": spec, **SETTINGS[task]}
  config |= {"config.model.layers": 2, "config.model.width": 64, "config.model.heads": 2}
  config |= {"config.optimizer.learning_rate": 0.003, "config.optimizer.warmup": 100}
  return {
    "task": task,
    "attention": spec,
    "seed": seed,
    "command": f"python -m experiments.{task} --attention='{spec}' --config.seed={seed}",
    "commit": commit,
    "device": "cpu × 1",
    "versions": {"python": "3.11.9", "jax": "0.10.2"},
    "config": config,
    "config_digest": records.config_digest(config),
  }


def _measured(task, index, seed):
  kind = TASKS[task]
  noise, higher = kind["noises"][index], kind["facts"]["higher_is_better"]
  generator = np.random.default_rng([len(task), index, seed])
  shared = np.random.default_rng([len(task), seed]).normal() * noise * 0.5
  final = kind["means"][index] + shared + generator.normal() * noise
  final = min(final, 1.0) if higher else final
  progress = np.linspace(0, 1, 21)[1:]
  jump = 1 / (1 + np.exp(-18 * (progress - 0.35 - 0.08 * index - generator.normal() * 0.03)))
  shape = jump if task == "recall" else 1 - np.exp(-6 * progress)
  curve = kind["start"] + (final - kind["start"]) * shape / shape[-1] + generator.normal(size=20) * noise * 0.4 * shape
  steps = progress * SETTINGS[task]["config.steps"]
  parameters, flops, time, memory = COSTS[index]
  return kind["facts"] | {
    "status": "done",
    "reason": "",
    "parameters": parameters,
    "flops_per_token": flops,
    "step_time": time * (1 + 0.02 * generator.normal()),
    "peak_bytes": int(memory * 38e6),
    "metrics": {kind["facts"]["primary"]: float(final), "loss": float(abs(1 - final) * 2)},
    "curve": [[int(step), float(value)] for step, value in zip(steps, curve, strict=True)],
    "digests": {"train": "8d1f0c77aa12be90", "test": "0b77e1d4c9a2f3e8"},
  }
