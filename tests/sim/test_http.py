"""HTTP on the virtual network: an exchange takes its time, and each way of failing is the one of the real client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from fleet.capabilities.http import HttpRequest, HttpResponse
from fleet.contracts.errors import InvalidValue, Refused, TimedOut, Unavailable
from fleet.contracts.time import Duration
from sim.http import LIMIT, HttpServer, HttpServers, SimHttp
from sim.network import Cut, Link
from sim.process import Process
from sim.world import World
from tests.conformance.conftest import Standing

ADDRESS = "http://idp.test"


class Lab:
    """A server on the backbone, and a device behind an uplink."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seen: list[str] = []
        world.network.add_node("idp")
        world.network.add_node("device", Link(jitter=Duration(0)))
        self.servers = HttpServers(world.network)
        self.server: HttpServer = self.servers.add(ADDRESS, "idp", self._handle)
        self.http = SimHttp(self.servers, "device", Standing(), world.clock)

    def _handle(self, request: HttpRequest) -> HttpResponse:
        self.seen.append(request.url)
        return HttpResponse(200, (), request.body)


def on_world(tell: Callable[[Lab], Awaitable[None]]) -> None:
    async def told(lab: Lab) -> None:
        await tell(lab)

    with World(1) as world:
        world.run(told(Lab(world)))


def asked(path: str = "/x", address: str = ADDRESS) -> HttpRequest:
    return HttpRequest("POST", f"{address}{path}", (), b"body")


def test_an_exchange_takes_two_latencies() -> None:
    async def tell(lab: Lab) -> None:
        assert (await lab.http.send(asked())).body == b"body"
        assert Duration.millis(40) <= Duration(lab.world.now()) < Duration.millis(42)

    on_world(tell)


def test_a_server_that_is_down_refuses() -> None:
    async def tell(lab: Lab) -> None:
        lab.server.up = False
        with pytest.raises(Unavailable):
            await lab.http.send(asked())
        assert lab.seen == []
        lab.server.up = True
        assert (await lab.http.send(asked())).status == 200

    on_world(tell)


def test_an_address_that_nobody_has_is_unavailable_and_no_address_is_refused() -> None:
    async def tell(lab: Lab) -> None:
        with pytest.raises(Unavailable):
            await lab.http.send(asked(address="http://nobody.test"))
        with pytest.raises(Refused):
            await lab.http.send(asked(address="gopher://idp.test"))
        with pytest.raises(InvalidValue):
            lab.servers.add(ADDRESS, "idp", lambda request: HttpResponse(200))

    on_world(tell)


@pytest.mark.parametrize(("cut", "arrives"), [(Cut.FROM_DEVICE, False), (Cut.TO_DEVICE, True)])
def test_a_cut_times_out_and_the_server_may_have_acted(cut: Cut, arrives: bool) -> None:
    async def tell(lab: Lab) -> None:
        lab.world.network.partition("device", cut)
        with pytest.raises(TimedOut):
            await lab.http.send(asked())
        assert Duration(lab.world.now()) == LIMIT
        assert bool(lab.seen) is arrives

    on_world(tell)


def test_what_a_process_sent_arrives_although_it_dies() -> None:
    async def tell(lab: Lab) -> None:
        async def main(process: Process) -> int:
            await SimHttp(lab.servers, "device", process, lab.world.clock).send(asked("/last"))
            raise AssertionError("it was killed before")

        process = lab.world.spawn("agent", main, lambda process, code: None)
        await lab.world.clock.sleep(Duration.millis(5))
        process.kill()
        await lab.world.clock.sleep(Duration.seconds(1))
        assert lab.seen == [f"{ADDRESS}/last"]

    on_world(tell)
