"""Between Hugging Face folders and the engine's tensors, at any TP x PP, streaming: no process ever holds the whole model."""

from cpt.convert.folder import BaseFolder
from cpt.convert.weights import export_weights, import_weights

__all__ = ["BaseFolder", "export_weights", "import_weights"]
