"""Features that mmravlt adds to MMEngine: its loading of weights, and its devices."""


def install() -> None:
    """Make the loading of weights safe, and let it give models what they need."""
    from . import checkpoint_loading

    checkpoint_loading.install()
