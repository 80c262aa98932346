"""How long questions wait for one another: M/M/c with a correction for how much service times vary.

    P(wait > t) = C(c, a) exp(-t / w),   w = S (1 + cv2) / 2 / (c (1 - rho)),   a = rate S,   rho = a / c

C is Erlang's. With exponential service (cv2 = 1) the wait is exact, and so is one server's mean wait whatever cv2 is;
in between it is the approximation of Allen and Cunneen. A latency's quantile is taken as mean service plus the wait's
quantile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cacheflow_ray.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Servers that answer.

    Args:
        rate: arrivals a second, all servers together.
        service_s: mean time of one.
        servers: c.
        cv2: variance of service times over their mean squared: 0 constant, 1 exponential.

    Raises:
        UsageError: more arrives than is served: the wait has no bound.
    """

    rate: float
    service_s: float
    servers: int
    cv2: float = 1.0

    def __post_init__(self) -> None:
        if self.rate * self.service_s >= self.servers:
            raise UsageError(
                f"{self.rate:g} questions/s of {self.service_s:g} s each are more than {self.servers} answerers serve: "
                "add answerers"
            )

    @property
    def utilisation(self) -> float:
        """rho, 0..1."""
        return self.rate * self.service_s / self.servers

    @property
    def waiting_share(self) -> float:
        """C(c, a): the share of questions that wait at all."""
        load, blocked = self.rate * self.service_s, 1.0
        for server in range(1, self.servers + 1):
            blocked = load * blocked / (server + load * blocked)
        return blocked / (1 - self.utilisation * (1 - blocked))

    def wait_s(self, share: float) -> float:
        """What that share of questions (0..1) waits at most."""
        waiting = self.waiting_share
        if waiting <= 1 - share:
            return 0.0
        mean_s = self.service_s * (1 + self.cv2) / 2 / (self.servers * (1 - self.utilisation))
        return mean_s * math.log(waiting / (1 - share))

    def latency_s(self, share: float) -> float:
        """Service and wait."""
        return self.service_s + self.wait_s(share)


def servers_for(rate: float, service_s: float, utilisation: float) -> int:
    """The fewest servers of which none is busier than that."""
    return max(1, math.ceil(rate * service_s / utilisation - 1e-9))
