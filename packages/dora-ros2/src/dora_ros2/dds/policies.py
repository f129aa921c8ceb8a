"""Quality of service between ROS and Cyclone DDS, and the DDS types that carry our CDR."""

from __future__ import annotations

from typing import Any, Final

from cyclonedds.core import Policy, Qos as DdsQos
from cyclonedds.idl import make_idl_struct, types as idl

from dora_ros2.types import MessageType
from dora_ros2.zenoh.keys import NO_HASH
from dora_ros2.zenoh.qos import Qos

_INFINITE: Final = 2**63 - 1
_BLOCKING: Final = 100_000_000
"""Nanoseconds that a reliable writer waits for slow readers."""


def dds_qos(qos: Qos, type_hash: str) -> DdsQos:
    """Return the policies of an endpoint; its user data has the type hash, as in rmw."""
    history: Any = Policy.History.KeepAll if qos.keep_all else Policy.History.KeepLast(qos.depth)
    lease = _INFINITE if qos.lease is None else qos.lease
    liveliness = Policy.Liveliness.ManualByTopic if qos.manual_liveliness else (
        Policy.Liveliness.Automatic
    )  # fmt: skip
    policies = [
        Policy.Reliability.Reliable(_BLOCKING) if qos.reliable else Policy.Reliability.BestEffort,
        Policy.Durability.TransientLocal if qos.transient_local else Policy.Durability.Volatile,
        history,
        Policy.DurabilityService(0, history, -1, -1, -1),  # what late readers receive
        Policy.Deadline(_INFINITE if qos.deadline is None else qos.deadline),
        Policy.Lifespan(_INFINITE if qos.lifespan is None else qos.lifespan),
        liveliness(lease),
        Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False),
        Policy.Userdata(f"typehash={type_hash};".encode()),
    ]
    return DdsQos(*policies)


def ros_qos(qos: DdsQos) -> Qos:
    """Return the quality of service of a discovered endpoint; its depth is not announced."""

    def held(policy: Any) -> Any:
        return qos[policy] if policy in qos else None  # noqa: SIM401 - not a dictionary

    def nanoseconds(policy: Any, name: str) -> int | None:
        value = getattr(held(policy), name, _INFINITE)
        return None if value >= _INFINITE else int(value)

    return Qos(
        reliable=not isinstance(held(Policy.Reliability), type(Policy.Reliability.BestEffort)),
        transient_local=held(Policy.Durability) not in (None, Policy.Durability.Volatile),
        deadline=nanoseconds(Policy.Deadline, "deadline"),
        lifespan=nanoseconds(Policy.Lifespan, "lifespan"),
        manual_liveliness=isinstance(held(Policy.Liveliness), Policy.Liveliness.ManualByTopic),
        lease=nanoseconds(Policy.Liveliness, "lease_duration"),
    )


def type_hash(qos: DdsQos) -> str:
    """Return the type hash in the user data of a discovered endpoint; Humble has none."""
    data = qos[Policy.Userdata].data if Policy.Userdata in qos else b""
    for entry in data.split(b";"):
        key, _, value = entry.partition(b"=")
        if key == b"typehash":
            return str(value.decode("ascii", "replace"))
    return NO_HASH


def carry(carrier: Any, payload: bytes | bytearray) -> Any:
    """Return a sample of a carrier."""
    sample = carrier.__new__(carrier)
    sample.payload = payload
    return sample


def carrier_of(kind: MessageType) -> Any:
    """Return a DDS type whose samples have the CDR of a message in ``payload``.

    Only its name counts: Cyclone DDS is configured to ignore the fields of types.
    """
    carrier = make_idl_struct("Message", kind.dds_name, {"unused": idl.uint8}, dataclassify=False)
    carrier.serialize = lambda sample, **_: sample.payload
    carrier.deserialize = classmethod(lambda cls, data, **_: carry(cls, data))
    carrier.deserialize_key = classmethod(lambda cls, data, **_: None)
    return carrier
