"""Between Hugging Face folders and the engine's tensors, at any TP x PP.

table      Hugging Face tensors <-> engine tensors, for every family
settings   config.json <-> the model section
folder     a folder checked against both, its tensors read slice by slice
weights    folder -> this rank's part of the engine
"""

from cpt.convert.folder import BaseFolder
from cpt.convert.weights import import_weights

__all__ = ["BaseFolder", "import_weights"]
