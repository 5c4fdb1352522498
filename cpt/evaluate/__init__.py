"""What a set of weights knows: held-out loss per source and multiple-choice benchmarks, and how two sets differ item by item."""
