"""What a run says about itself: the journal is the truth, `sync` copies it to MLflow, training never waits for a server."""
