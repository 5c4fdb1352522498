"""Raw text -> token files with a manifest: `cpt prepare`. Needs neither torch nor megatron.

::

    formats (records of files) -> serialize (documents) -> rules (filters) -> dedup (exact, signatures) -> split -> tokens
"""
