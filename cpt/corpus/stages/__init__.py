"""The stages of `cpt prepare`, in order; each leaves its files and, last, the record that says they are whole. `units` runs them on a `Pipeline`.

::

    select    a shard of files -> documents that the filters keep, with their keys (exact text, MinHash bands) and the draw of their family
    learn     a classifier     -> the model, and how it does
    score     a shard          -> a score of each document, where the source has a classifier
    match     a band, a range  -> edges between documents that share a key there
    decide    the corpus       -> the fate of every document, held-out texts, benchmarks, and the n-grams of both
    tokenize  a shard          -> token files of what stays and holds none of those n-grams
"""
