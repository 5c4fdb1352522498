"""Every family that the engine knows, small, with what sets it apart; and the layouts that each must answer in."""

from __future__ import annotations

SHAPE = ["model.vocab_size=2049", "model.num_layers=4", "model.base_source=random"]
FAMILIES = {
    "llama": ["model.tied_embeddings=true"],
    "llama31": [
        "model.tied_embeddings=false",
        "model.rope_theta=500000.0",
        "model.rope_scaling.kind=llama3",
        "model.rope_scaling.factor=8.0",
        "model.max_position_embeddings=16384",
    ],
    # Neither megatron-core's low, high and original length, nor a whole number as the base of the frequencies.
    "llama_other_scaling": [
        "model.tied_embeddings=false",
        "model.rope_theta=1234.5",
        "model.rope_scaling.kind=llama3",
        "model.rope_scaling.factor=3.0",
        "model.rope_scaling.low_freq_factor=2.0",
        "model.rope_scaling.high_freq_factor=8.0",
        "model.rope_scaling.original_max_position_embeddings=64",
    ],
    "deepseek_llm": ["model.tied_embeddings=false", "model.num_query_groups=8", "model.kv_channels=8", "model.norm_epsilon=1.0e-6"],
    "mistral": ["model.architecture=MistralForCausalLM", "model.tied_embeddings=false", "model.sliding_window=256", "model.rope_theta=1000000.0"],
    "qwen2": ["model.architecture=Qwen2ForCausalLM", "model.tied_embeddings=true", "model.kv_channels=8", "model.norm_epsilon=1.0e-6"],
    "qwen3": ["model.architecture=Qwen3ForCausalLM", "model.tied_embeddings=false", "model.kv_channels=24", "model.norm_epsilon=1.0e-6"],
}
LAYOUTS = {"TP1": (1, 1), "TP2": (2, 1), "TP2 x PP2": (2, 2)}
"""Name -> TP, PP."""


def overrides(family: str, layout: str = "TP1") -> list[str]:
    """Settings on top of `tests.tiny`."""
    tensor, pipeline = LAYOUTS[layout]
    parallel = [f"slurm.tasks_per_node={tensor * pipeline}", f"parallel.tensor_parallel_size={tensor}", f"parallel.pipeline_parallel_size={pipeline}"]
    return [f"model.name={family}", *SHAPE, *FAMILIES[family], *parallel, "train.precision=fp32"]
