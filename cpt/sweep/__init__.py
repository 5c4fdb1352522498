"""From trials on disk to one decision: collect what they left, choose, write the choice as a config. No torch, no SLURM."""
