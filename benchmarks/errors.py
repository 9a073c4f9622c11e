class BenchmarkError(ValueError):
    """Says in one sentence why something cannot be measured."""
