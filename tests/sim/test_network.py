"""The network: latency, order, shared bandwidth, cuts in one direction or both, and the same deliveries each time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest

from fleet.contracts.errors import Disconnected, InvalidValue, NotFound
from fleet.contracts.time import ZERO, Duration
from sim.network import PATIENCE, TURN, Cut, Link
from sim.world import World

MEGABYTE = 1_000_000
STEADY = Link(Duration.millis(20), ZERO, MEGABYTE)
"""No jitter, 1 byte per microsecond."""
JITTERY = Link(Duration.millis(20), Duration.millis(50), MEGABYTE)


class Lab:
    """A server on the backbone, two devices behind uplinks, and what arrived when, in milliseconds."""

    def __init__(self, seed: int = 1, link: Link = STEADY) -> None:
        self.world = World(seed)
        self.network = self.world.network
        self.arrived: list[tuple[float, str]] = []
        self.network.add_node("server")
        self.network.add_node("a", link)
        self.network.add_node("b", link)

    @property
    def now(self) -> float:
        return self.world.kernel.now / 1e6

    def send(self, source: str, target: str, text: str, size: int = 0) -> bool:
        return self.network.route(source, target).send(size, self.deliver, text)

    def deliver(self, text: str) -> None:
        self.arrived.append((self.now, text))

    def pass_time(self, milliseconds: float = 1_000_000) -> None:
        self.world.run(self.world.clock.sleep(Duration.millis(milliseconds)))

    async def fetch(self, target: str, size: int, text: str = "fetched", source: str = "server") -> None:
        await self.network.transfer(source, target, size)
        self.deliver(text)


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    with lab.world:
        yield lab


# --- messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "milliseconds"),
    [("a", "server", 20), ("server", "a", 20), ("a", "b", 40), ("server", "server", 0)],
)
def test_a_message_takes_the_latency_of_each_uplink_on_its_way(
    lab: Lab, source: str, target: str, milliseconds: float
) -> None:
    assert lab.send(source, target, "hello")
    lab.pass_time()
    assert lab.arrived == [(milliseconds, "hello")]


def test_a_message_takes_the_time_that_its_bytes_need(lab: Lab) -> None:
    lab.send("a", "server", "1,000 bytes", 1_000)
    lab.send("a", "server", "behind it")
    lab.send("b", "server", "elsewhere")
    lab.send("server", "a", "the other way")
    lab.pass_time()
    assert lab.arrived == [(20, "elsewhere"), (20, "the other way"), (21, "1,000 bytes"), (21, "behind it")]


def test_messages_of_a_route_never_overtake_each_other() -> None:
    lab = Lab(link=JITTERY)
    with lab.world:
        for number in range(200):
            lab.send("a", "server", f"{number}")
            lab.pass_time(1)
        lab.pass_time()
    times = [at for at, _ in lab.arrived]
    assert [int(text) for _, text in lab.arrived] == list(range(200))
    assert all(earlier <= later for earlier, later in pairwise(times))


def test_jitter_stays_within_its_bounds_and_is_spread() -> None:
    lab = Lab(link=JITTERY)
    with lab.world:
        late = []
        for _ in range(200):
            sent = lab.now
            lab.send("a", "server", "hello")
            lab.pass_time(1_000)
            late.append(lab.arrived[-1][0] - sent - 20)
    assert 0 <= min(late) < 5
    assert 45 < max(late) <= 50


def test_routes_are_made_once(lab: Lab) -> None:
    assert lab.network.route("a", "server") is lab.network.route("a", "server")
    assert lab.network.route("a", "server") is not lab.network.route("server", "a")


def test_what_does_not_exist_is_named(lab: Lab) -> None:
    with pytest.raises(NotFound, match="'nowhere'"):
        lab.network.route("a", "nowhere")
    with pytest.raises(NotFound, match="'nowhere'"):
        lab.network.partition("nowhere")
    with pytest.raises(InvalidValue, match="'a'"):
        lab.network.add_node("a")
    with pytest.raises(InvalidValue, match="backbone"):
        lab.network.partition("server")
    with pytest.raises(InvalidValue, match="bandwidth"):
        Link(bandwidth=0)


# --- cuts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "passes"),
    [(Cut.BOTH, []), (Cut.TO_DEVICE, ["from the device"]), (Cut.FROM_DEVICE, ["to the device"])],
)
def test_a_partition_cuts_the_directions_it_names(lab: Lab, cut: Cut, passes: list[str]) -> None:
    lab.network.partition("a", cut)
    sent = {
        "to the device": lab.send("server", "a", "to the device"),
        "from the device": lab.send("a", "server", "from the device"),
    }
    assert lab.send("b", "server", "another device")
    lab.pass_time()
    assert [text for text, was_sent in sent.items() if was_sent] == passes
    assert sorted(text for _, text in lab.arrived) == sorted([*passes, "another device"])


def test_a_healed_link_carries_what_is_sent_from_then_on(lab: Lab) -> None:
    lab.network.partition("a")
    assert not lab.send("a", "server", "into the cut")
    lab.network.heal("a")
    assert lab.send("a", "server", "after it")
    lab.pass_time()
    assert [text for _, text in lab.arrived] == ["after it"]


def test_what_was_sent_before_a_cut_arrives(lab: Lab) -> None:
    lab.send("a", "server", "under way")
    lab.pass_time(10)
    lab.network.partition("a")
    lab.pass_time()
    assert lab.arrived == [(20, "under way")]


def test_partitions_overlap(lab: Lab) -> None:
    route, back = lab.network.route("a", "server"), lab.network.route("server", "a")
    lab.network.partition("a", Cut.BOTH)
    lab.network.partition("a", Cut.TO_DEVICE)
    lab.network.heal("a", Cut.BOTH)
    assert (route.is_cut, back.is_cut, lab.network.is_cut("a")) == (False, True, True)
    lab.network.heal("a", Cut.TO_DEVICE)
    assert (route.is_cut, back.is_cut, lab.network.is_cut("a")) == (False, False, False)
    lab.network.heal("a")
    lab.network.partition("a")
    assert route.is_cut


def test_listeners_are_told_of_every_change(lab: Lab) -> None:
    told: list[tuple[str, bool]] = []
    lab.network.on_change(lambda node: told.append((node, lab.network.is_cut(node))))
    lab.network.partition("a", Cut.TO_DEVICE)
    lab.network.partition("b")
    lab.network.heal("a", Cut.TO_DEVICE)
    assert told == [("a", True), ("b", True), ("a", False)]


# --- transfers ---------------------------------------------------------------------------------------


def fetched(lab: Lab) -> dict[str, float]:
    return {text: at for at, text in lab.arrived}


def test_a_transfer_takes_its_bytes_and_the_latency(lab: Lab) -> None:
    lab.world.run(lab.fetch("a", 5 * MEGABYTE))
    assert lab.arrived == [(5_020, "fetched")]


def test_a_transfer_on_the_backbone_takes_no_time(lab: Lab) -> None:
    lab.network.add_node("registry")
    lab.world.run(lab.fetch("registry", 5 * MEGABYTE))
    assert lab.arrived == [(0, "fetched")]


def test_two_transfers_share_an_uplink_evenly(lab: Lab) -> None:
    async def main() -> None:
        await asyncio.gather(lab.fetch("a", 5 * MEGABYTE, "long"), lab.fetch("a", 2 * MEGABYTE, "short"))

    lab.world.run(main())
    turn = TURN / 1e6
    assert abs(fetched(lab)["short"] - 4_020) <= turn
    assert fetched(lab)["long"] == 7_020


def test_transfers_of_different_devices_and_directions_do_not_share(lab: Lab) -> None:
    async def main() -> None:
        await asyncio.gather(
            lab.fetch("a", MEGABYTE, "to a"),
            lab.fetch("b", MEGABYTE, "to b"),
            lab.fetch("server", MEGABYTE, "from a", source="a"),
        )

    lab.world.run(main())
    assert lab.arrived == [(1_020, "to a"), (1_020, "to b"), (1_020, "from a")]


def test_a_small_message_waits_for_at_most_a_turn_of_each_transfer(lab: Lab) -> None:
    transfers = 3

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(transfers):
                group.create_task(lab.fetch("a", 10 * MEGABYTE, f"fetched {number}"))
            for number in range(20):
                await lab.world.clock.sleep(Duration.millis(777))
                lab.send("server", "a", f"{number} {lab.now}", 300)

    lab.world.run(main())
    waits = [at - float(text.split()[1]) for at, text in lab.arrived if not text.startswith("fetched")]
    assert len(waits) == 20
    assert max(waits) <= 20 + 0.3 + transfers * TURN / 1e6
    assert max(waits) > 20 + TURN / 1e6, "the transfers were not even noticed"


def test_an_uplink_carries_no_more_than_its_bandwidth(lab: Lab) -> None:
    """Two transfers and a stream of messages: at each arrival, no more bytes are through than the link carries."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(lab.fetch("a", 3 * MEGABYTE, f"{3 * MEGABYTE}"))
            for _ in range(100):
                lab.send("server", "a", "10000", 10_000)
                await lab.world.clock.sleep(Duration.millis(40))

    lab.world.run(main())
    through = 0
    for at, text in lab.arrived:
        through += int(text)
        assert through <= (at - 20) * MEGABYTE / 1_000
    assert through == 7 * MEGABYTE
    assert lab.arrived[-1][0] == 7_020


@pytest.mark.parametrize("cut", Cut)
def test_a_transfer_waits_out_a_cut_of_either_direction(lab: Lab, cut: Cut) -> None:
    async def main() -> None:
        fetch = asyncio.create_task(lab.fetch("a", 5 * MEGABYTE))
        await lab.world.clock.sleep(Duration.millis(2_050))
        lab.network.partition("a", cut)
        await lab.world.clock.sleep(Duration.seconds(10))
        lab.network.heal("a", cut)
        await fetch

    lab.world.run(main())
    turn = TURN / 1e6
    assert 15_020 - turn <= fetched(lab)["fetched"] <= 15_020 + turn


def test_a_transfer_fails_when_the_cut_lasts(lab: Lab) -> None:
    async def main() -> None:
        lab.network.partition("a", Cut.TO_DEVICE)
        with pytest.raises(Disconnected, match="30s"):
            await lab.network.transfer("server", "a", 1)

    lab.world.run(main())
    assert lab.world.kernel.now == PATIENCE


def test_a_transfer_outlasts_cuts_that_are_each_short(lab: Lab) -> None:
    async def main() -> None:
        fetch = asyncio.create_task(lab.fetch("a", 5 * MEGABYTE))
        for _ in range(4):
            await lab.world.clock.sleep(Duration.millis(550))
            lab.network.partition("a")
            await lab.world.clock.sleep(PATIENCE - Duration.seconds(1))
            lab.network.heal("a")
        await fetch

    lab.world.run(main())
    assert fetched(lab)["fetched"] > 4 * 29_000


def test_a_transfer_waits_for_both_ends(lab: Lab) -> None:
    async def main() -> None:
        lab.network.partition("a")
        lab.network.partition("b")
        fetch = asyncio.create_task(lab.fetch("b", MEGABYTE, source="a"))
        await lab.world.clock.sleep(Duration.seconds(1))
        lab.network.heal("a")
        await lab.world.clock.sleep(Duration.seconds(1))
        assert not fetch.done()
        lab.network.heal("b")
        await fetch

    lab.world.run(main())
    assert 3_040 <= fetched(lab)["fetched"] <= 3_040 + TURN / 1e6


def test_a_cancelled_transfer_frees_the_uplink(lab: Lab) -> None:
    async def main() -> None:
        fetch = asyncio.create_task(lab.fetch("a", 100 * MEGABYTE))
        await lab.world.clock.sleep(Duration.seconds(1))
        fetch.cancel()
        await lab.fetch("a", MEGABYTE, "after it")

    lab.world.run(main())
    assert fetched(lab)["after it"] <= 2_020 + TURN / 1e6


def test_a_killed_programs_transfer_frees_the_uplink(lab: Lab) -> None:
    async def program(process: object) -> int:
        await lab.fetch("a", 100 * MEGABYTE)
        return 0

    async def main() -> None:
        process = lab.world.spawn("p", program, lambda process, code: None)
        await lab.world.clock.sleep(Duration.seconds(1))
        process.kill()
        await lab.fetch("a", MEGABYTE, "after it")

    lab.world.run(main())
    assert fetched(lab)["after it"] <= 2_020 + TURN / 1e6


# --- the same each time ------------------------------------------------------------------------------


def deliveries(seed: int, extra: bool = False) -> list[tuple[float, str]]:
    lab = Lab(seed, JITTERY)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(lab.fetch("a", 2 * MEGABYTE))
            for number in range(100):
                lab.send("a", "server", f"a{number}", 300)
                lab.send("server", "a", f"to a{number}", 300)
                if extra:
                    lab.send("b", "server", f"b{number}", 300)
                await lab.world.clock.sleep(Duration.millis(37))
        await lab.world.clock.sleep(Duration.seconds(10))

    with lab.world:
        lab.world.run(main())
    return lab.arrived


def test_the_same_seed_delivers_the_same() -> None:
    assert deliveries(1) == deliveries(1)
    assert deliveries(1) != deliveries(2)


def test_one_devices_messages_do_not_move_anothers() -> None:
    with_b = [item for item in deliveries(1, extra=True) if not item[1].startswith("b")]
    assert with_b == deliveries(1)


def test_a_throttled_uplink_carries_less_until_it_is_let_go(lab: Lab) -> None:
    lab.network.throttle("a", 1_000)
    lab.network.throttle("a", 10_000)

    async def story() -> None:
        await lab.fetch("a", 1_000, "slow")
        lab.network.unthrottle("a", 1_000)
        await lab.fetch("a", 1_000, "less slow")
        lab.network.unthrottle("a", 10_000)
        await lab.fetch("a", 1_000, "whole")

    lab.world.run(story())
    assert lab.arrived == [(1_020, "slow"), (1_140, "less slow"), (1_161, "whole")]


def test_a_throttle_that_comes_in_the_middle_of_a_transfer_shortens_its_turns(lab: Lab) -> None:
    """Or else a small message would wait behind a turn that was measured for the whole line."""

    async def story() -> None:
        task = asyncio.ensure_future(lab.fetch("a", MEGABYTE))
        await lab.world.clock.sleep(Duration.millis(350))
        lab.network.throttle("a", MEGABYTE // 100)
        await lab.world.clock.sleep(Duration.millis(200))
        lab.send("server", "a", "small", 10)
        await lab.world.clock.sleep(Duration.seconds(1))
        task.cancel()

    lab.world.run(story())
    (when, text) = lab.arrived[0]
    assert text == "small"
    assert when < 550 + 20 + 2 * TURN.in_seconds * 1000
