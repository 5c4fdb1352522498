"""megatron-core, from process groups to one optimizer step; the same code on GPUs over NCCL and on CPUs over gloo.

    World + ParallelConfig -> parallel.initialize -> model.build_chunks -> optimizer.build_optimizer -> Engine

`Engine` has three verbs, `train_step` (in two halves: `compute_gradients`, `update`), `token_losses`, `logits`, and shares a batch by `rows` and `gather`. Nothing else in the suite calls megatron's model code.
"""

from cpt.engine import quiet

quiet.install()  # before torch is imported

from cpt.engine import cpu  # noqa: E402

cpu.install()  # before megatron is imported anywhere; does nothing where CUDA exists

from cpt.engine.engine import Engine, StepResult  # noqa: E402
from cpt.engine.parallel import finalize, initialize  # noqa: E402

__all__ = ["Engine", "StepResult", "finalize", "initialize"]
