"""One self-contained page about one run. Every number comes from a file that a stage left; what is missing is said, never invented.

::

    facts (read everything once) -> attempts (what the restarts cost)
        -> headline, results, training, provenance (each a few sections of the page, with pictures from canvas)
        -> page (HTML and style) -> report.html
"""
