"""Token files (`cpt.corpus` makes them) -> deterministic samples. Needs neither torch nor megatron.

::

    indexed (.bin/.idx) -> stream (which window) x blend (which source) -> mixture -> Batch
"""

from cpt.data.identity import batch_crc32, data_fingerprint, require_same_data, row_checksums
from cpt.data.ledger import Ledger
from cpt.data.manifest import open_manifest
from cpt.data.mixture import Batch, MixtureDataset, open_heldout, open_mixture

__all__ = [
    "Batch",
    "Ledger",
    "MixtureDataset",
    "batch_crc32",
    "data_fingerprint",
    "open_heldout",
    "open_manifest",
    "open_mixture",
    "require_same_data",
    "row_checksums",
]
