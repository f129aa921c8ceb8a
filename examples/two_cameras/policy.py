"""The policy: moves the joints to where both cameras see the spot at the same instant."""

import numpy as np
import pyarrow as pa

from dora import Node, Sample
from dora_node_api import InputEvent


def seen(image: InputEvent) -> np.ndarray:
    """Return the place of the bright spot, 0 to 1 across and down."""
    shape = (image.metadata["height"], image.metadata["width"], 3)
    rows, columns = np.nonzero(image.value.to_numpy().reshape(shape)[:, :, 0] > 200)
    return np.array([columns.mean() / shape[1], rows.mean() / shape[0]])


node = Node()
for sample in node.joined("front", "wrist", "state", within=0.02):
    if isinstance(sample, Sample):
        target = np.array([seen(sample["front"])[0], seen(sample["wrist"])[1]])
        joints = sample["state"].value.to_numpy()
        action = joints + 0.5 * (target - joints)
        metadata = {"names": ["pan", "tilt"], "stamp": sample.time, "spread": sample.spread}
        node.send_output("action", pa.array(action, pa.float32()), metadata)
