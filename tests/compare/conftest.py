"""A comparison that looks like a real one: 3 tasks, 5 variants (one cannot be causal), 3 seeds, seeded noise."""

import numpy as np
import pytest

from attention_lab.compare import grid, ledger

SPECS = ("softmax", "local(window=16)", "linear", "pooling", "linformer(rank=16)")
SEEDS = (0, 1, 2)
SETTINGS = {
  "recall": {"config.steps": 1000, "config.batch": 64},
  "image_classification": {"config.steps": 600, "config.batch": 64},
  "language_modeling": {"config.steps": 800, "config.batch": 16},
}
# task -> (metric, higher is better, start of the curve, chance, controls, final means, noise over seeds and runs)
TASKS = {
  "recall": ("accuracy", True, 0.02, 0.0156, {}, (0.9985, 0.228, 0.71, 0.031, 0), (0.0008, 0.006, 0.09, 0.002, 0)),
  "image_classification": (
    "accuracy", True, 0.1, 0.1, {}, (0.9712, 0.9694, 0.9622, 0.881, 0.9655), (0.004, 0.004, 0.004, 0.006, 0.005),
  ),
  "language_modeling": (
    "bits_per_byte", False, 6.5, 8.0, {"bigram": 3.41, "5-gram": 2.263}, (2.318, 2.301, 2.402, 2.871, 0), (0.012, 0.012, 0.02, 0.02, 0),
  ),
}  # fmt: skip
COSTS = (
  (104_704, 655_360, 0.031, 1.0),
  (104_704, 471_040, 0.024, 0.8),
  (104_704, 430_080, 0.027, 0.9),
  (71_936, 280_064, 0.017, 0.7),
  (108_800, 481_280, 0.026, 0.9),
)


def make_rows(seeds=SEEDS, commit="3f1c2ab9d0e1"):
  """Rows of every task, variant and seed, as the ledger holds them."""
  return [row for task in TASKS for index in range(len(SPECS)) for row in _variant_rows(task, index, seeds, commit)]


def write_workdir(folder, seeds=SEEDS):
  """A workdir with grid and ledger, without reports."""
  grid.register(folder, grid.plan(SETTINGS, SPECS, seeds))
  for row in make_rows(seeds):
    ledger.append(folder / "results.jsonl", row)
  return folder


@pytest.fixture
def rows():
  return make_rows()


@pytest.fixture
def workdir(tmp_path):
  return write_workdir(tmp_path)


def _variant_rows(task, index, seeds, commit):
  rows = []
  for seed in seeds:
    row = _identity(task, SPECS[index], seed, commit)
    if SPECS[index].startswith("linformer") and task != "image_classification":
      reason = "linformer is not causal (it mixes keys of all positions): use it in an encoder"
      rows.append(row | {"status": "refused", "reason": reason})
    else:
      rows.append(row | _measured(task, index, seed))
  return rows


def _identity(task, spec, seed, commit):
  config = {
    "config.seed": seed, "config.model.attention": spec, **SETTINGS[task], "config.model.layers": 2, "config.model.width": 64,
    "config.model.heads": 2, "config.optimizer.learning_rate": 0.003, "config.optimizer.warmup": 100, "config.optimizer.weight_decay": 0.01,
  }  # fmt: skip
  command = (
    f"python -m experiments.{task} --attention='{spec}' --config.seed={seed} --config.steps={config['config.steps']}"
  )
  return {
    "task": task, "attention": spec, "seed": seed, "command": command, "commit": commit, "device": "cpu × 1",
    "versions": {"python": "3.11.9", "jax": "0.10.2"}, "config": config, "config_digest": ledger.config_digest(config),
  }  # fmt: skip


def _measured(task, index, seed):
  metric, higher, start, chance, controls, means, noises = TASKS[task]
  generator = np.random.default_rng([len(task), index, seed])
  shared = np.random.default_rng([len(task), seed]).normal() * noises[index] * 0.5
  final = means[index] + shared + generator.normal() * noises[index]
  final = min(final, 1.0) if higher else final
  steps = np.linspace(0, SETTINGS[task]["config.steps"], 21)[1:]
  progress = steps / steps[-1]
  jump = 1 / (1 + np.exp(-18 * (progress - 0.35 - 0.08 * index - generator.normal() * 0.03)))
  shape = jump if task == "recall" else 1 - np.exp(-6 * progress)
  curve = start + (final - start) * shape / shape[-1] + generator.normal(size=20) * noises[index] * 0.4
  parameters, flops, time, memory = COSTS[index]
  return {
    "status": "done", "reason": "", "parameters": parameters, "flops_per_token": flops, "step_time": time * (1 + 0.02 * generator.normal()),
    "peak_bytes": int(memory * 38e6), "metrics": {metric: float(final), "loss": float(abs(1 - final) * 2)}, "primary": metric,
    "curve": [[int(step), float(value)] for step, value in zip(steps, curve, strict=True)], "higher_is_better": higher,
    "chance": chance, "controls": controls, "digests": {"train": "8d1f0c77aa12be90", "test": "0b77e1d4c9a2f3e8"},
  }  # fmt: skip
