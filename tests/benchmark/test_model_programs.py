import math

import pytest

from attention_lab.benchmark.models import lab_programs, settings

SIZES = {
  "gpt": {"length": 6, "vocabulary": 11},
  "vit": {"image": 8, "patch": 4, "classes": 3},
  "generate": {"length": 4, "vocabulary": 11, "new_tokens": 3},
}


@pytest.mark.parametrize("model", SIZES)
def test_the_program_of_each_model_runs(model):
  sizes = {"layers": 1, "width": 8, "heads": 2, **SIZES[model]}
  workload = settings.Settings((model,), sizes=sizes).workloads(model, 2)["softmax"]
  program = lab_programs.build(workload)
  runs = [program.run(number) for number in range(2)]
  assert all(run["seconds"] > 0 for run in runs)
  if model != "generate":
    assert all(math.isfinite(run["loss"]) for run in runs)
    assert program.fields["flops"] > 0
