"""Session and features, which `DoraRobot` and `DoraTeleoperator` share."""

from __future__ import annotations

from typing import Protocol

from lerobot_robot_dora.observations import Features, Observations, Received
from lerobot_robot_dora.session import RobotSession, acquire, release


class Config(Protocol):
    node: str | None
    dataflow: str | None
    max_age: float
    timeout: float


class Client:
    """A user of the session of a node, which begins when the features are read."""

    def __init__(self, config: Config, *, leader: bool) -> None:
        self._config = config
        self._leader = leader
        self._session: RobotSession | None = None
        self._features: Features | None = None
        self.connected = False

    @property
    def session(self) -> RobotSession:
        if self._session is None:
            self._session = acquire(self._config.node, self._config.dataflow)
        return self._session

    @property
    def _group(self) -> Observations:
        return self.session.leader if self._leader else self.session.robot

    def wait(self) -> dict[str, Received]:
        """Return the newest message of each input. Raises ConnectionError."""
        return self.session.wait(self._group, self._config.max_age, self._config.timeout)

    @property
    def features(self) -> Features:
        """The features that the first messages have. Raises ConnectionError and ValueError."""
        if self._features is None:
            self.wait()
            self._features = self._group.features()
        return self._features

    def connect(self) -> None:
        self.connected = bool(self.features)

    def disconnect(self) -> None:
        self.connected = False
        if self._session is not None:
            self._session = None
            release(self._config.node, self._config.dataflow)
