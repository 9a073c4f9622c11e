"""Features that mmravlt adds to MMEngine: loading of weights, devices, layer decay."""


def install() -> None:
    """Make the loading of weights safe, and let it give models what they need.

    And register what configs name.
    """
    from . import checkpoint_loading, layer_decay

    checkpoint_loading.install()
    layer_decay.install()
