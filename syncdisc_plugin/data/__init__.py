"""The clip store, how it is filled, split, filtered and sampled."""
