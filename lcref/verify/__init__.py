"""Judge an implementation of the projections: oracles, properties, certificates."""
