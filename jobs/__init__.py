"""One verb = one file = one process. No logic here: each file is a table of contents."""
