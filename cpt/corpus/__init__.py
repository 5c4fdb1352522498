"""Raw text -> token files with a manifest: `cpt prepare`. Needs neither torch nor megatron.

::

    inputs (shards) -> formats (records) -> serialize (documents) -> screen (scrub, language, rules) -> stages -> summary (manifest)

`pipeline` says what there is to do, `units` does one piece of it, `work` does all here, `batches` is what tasks of job arrays do.
"""
