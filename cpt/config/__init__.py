"""What can be chosen: typed sections, one composer, one validator, one fingerprint.

`compose` is the only door to Hydra; `seal` makes a `RunConfig` refuse change; `fingerprint` names a run by what changes
its results. Nobody below reads YAML, environment or globals: a `RunConfig` or one of its sections is passed down.
"""

from cpt.config.run import RunConfig
from cpt.config.seal import seal

__all__ = ["RunConfig", "seal"]
