"""Between Hugging Face folders and the engine's tensors, at any TP x PP.

Import reads only the slices a rank needs; export gathers one tensor at a time and holds one pipeline stage until it is written.
"""

from cpt.convert.folder import BaseFolder
from cpt.convert.weights import export_weights, import_weights

__all__ = ["BaseFolder", "export_weights", "import_weights"]
