"""Features that mmravlt adds to MMEngine, each by itself."""

from importlib import import_module

#: The modules whose ``install()`` changes MMEngine; any of them may be left out.
FEATURES = (
    *('checkpoint_loading', 'drawing', 'layer_decay', 'loading'),
    'weight_remapping',
)


def install() -> None:
    """Add the features; may be called any number of times."""
    for name in FEATURES:
        import_module(f'.{name}', __name__).install()
