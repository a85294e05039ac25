import math

import pytest

from attention_lab.benchmark.models import ours, settings

SIZES = {
  "gpt": {"length": 6, "vocabulary": 11},
  "vit": {"image": 8, "patch": 4, "classes": 3},
  "generate": {"length": 4, "vocabulary": 11, "new_tokens": 3},
}


@pytest.mark.parametrize("model", SIZES)
def test_the_program_of_each_model_runs(model):
  sizes = {"layers": 1, "width": 8, "heads": 2, **SIZES[model]}
  job = settings.Settings((model,), sizes=sizes).jobs(model, 2)["softmax"]
  subject = ours.build(job)
  found = [subject.run(number) for number in range(2)]
  assert all(one["seconds"] > 0 for one in found)
  if model != "generate":
    assert all(math.isfinite(one["loss"]) for one in found)
    assert subject.facts["flops"] > 0
