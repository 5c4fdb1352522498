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
    "deepseek_v2": [
        "model.architecture=DeepseekV2ForCausalLM",
        "model.tied_embeddings=false",
        "model.num_query_groups=8",
        "model.kv_channels=8",
        "model.norm_epsilon=1.0e-6",
        "model.rope_scaling.kind=yarn",
        "model.rope_scaling.factor=4.0",
        "model.rope_scaling.original_max_position_embeddings=128",
        "model.rope_scaling.mscale=0.707",
        "model.rope_scaling.mscale_all_dim=0.5",
        "model.mla.kv_lora_rank=24",
        "model.mla.qk_head_dim=16",
        "model.mla.qk_pos_emb_head_dim=8",
        "model.mla.v_head_dim=12",
        "model.moe.num_experts=8",
        "model.moe.topk=3",
        "model.moe.ffn_hidden_size=24",
        "model.moe.shared_experts=2",
        "model.moe.dense_layers=1",
        "model.moe.topk_scaling_factor=1.5",
        "model.moe.aux_loss_coefficient=0.01",
    ],
}
LAYOUTS = {
    "TP1": (1, 1, 1, 1),
    "TP2": (2, 1, 1, 1),
    "TP2 x PP2": (2, 2, 1, 1),
    "TP1 x PP2 x VP2": (1, 2, 2, 1),
    "DP2 x EP2": (1, 1, 1, 2),
    "TP2 x PP2 x EP2": (2, 2, 1, 2),
}
"""Name -> TP, PP, chunks of a stage, ranks that experts are spread over."""


def ranks_of(layout: str) -> int:
    """The fewest that it takes."""
    tensor, pipeline, _, experts = LAYOUTS[layout]
    return max(tensor, experts) * pipeline


def families_of(layout: str) -> list[str]:
    """Those that have a layout: experts are spread where there are any."""
    return [family for family in FAMILIES if LAYOUTS[layout][-1] == 1 or family == "deepseek_v2"]


def overrides(family: str, layout: str = "TP1") -> list[str]:
    """Settings on top of `tests.tiny`."""
    tensor, pipeline, chunks, experts = LAYOUTS[layout]
    sizes = {"tensor_parallel_size": tensor, "pipeline_parallel_size": pipeline, "virtual_pipeline_size": chunks, "expert_parallel_size": experts}
    parallel = [f"slurm.tasks_per_node={ranks_of(layout)}", *(f"parallel.{name}={size}" for name, size in sizes.items())]
    if family == "deepseek_v2" and tensor > 1:
        parallel.append("parallel.sequence_parallel=true")  # megatron-core asks for it with experts
    return [f"model.name={family}", *SHAPE, *FAMILIES[family], *parallel, "train.precision=fp32"]
