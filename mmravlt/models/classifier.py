from torch import Tensor, nn

from .backbones import Backbone
from .layers import init_linear


class LinearHead(nn.Module):
    """A linear layer called ``fc``, as the weights of mmpretrain's classifiers are.

    Args:
        num_classes (int): length of the output.
        in_channels (int): C of the input, shape (B, C).
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)
        init_linear(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C) to (B, num_classes)."""
        return self.fc(x)


class GlobalAveragePooling(nn.Module):
    """The mean of the last map's pixels, for classifiers without other layers there."""

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Turn the last map (B, C, H, W) into a tuple of one vector (B, C)."""
        return (maps[-1].mean((2, 3)),)


class Classifier(nn.Module):
    """An image classifier that needs nothing but PyTorch.

    Its weights have the names of those of mmpretrain's ``ImageClassifier`` in the
    configs, so that either takes the weights of the other.

    Args:
        backbone (Backbone): returns the last stage's map.
        neck (nn.Module): turns the maps into a tuple of one vector per image.
        num_classes (int): of the images.
        in_channels (int): length of the vector.
    """

    def __init__(
        self, backbone: Backbone, neck: nn.Module, num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = LinearHead(num_classes, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images.

        Args:
            x (Tensor): images, shape (B, 3, H, W).

        Returns:
            Tensor: logits, shape (B, num_classes).
        """
        (vector,) = self.neck(self.backbone(x))
        return self.head(vector)
