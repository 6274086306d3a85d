"""How many threads a step has, by what they got of the machine."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from autoglm_backend.cpus import CpuUse
from autoglm_backend.engine.team_size import READ_EVERY_S, TeamSize


@dataclass
class Machine:
    """Its clock and its counters, as the test sets them."""

    use: CpuUse | None
    now_s: float = 0.0
    readings: int = 0
    sizes: list[int] = field(default_factory=list[int])

    def read(self) -> CpuUse | None:
        self.readings += 1
        return self.use

    def team(self, most: int) -> TeamSize:
        return TeamSize(most, read=self.read, resize=self.sizes.append, clock=lambda: self.now_s)

    def turn(self, team: TeamSize, use: CpuUse | None) -> None:
        self.use = use
        self.now_s += READ_EVERY_S
        team.turn()


STACKED = CpuUse(waiting=1.0, idle=0.0)
ALONE = CpuUse(waiting=0.02, idle=0.1)
ONE_FREE = CpuUse(waiting=0.0, idle=1.0)


def test_two_threads_on_one_cpu_become_one():
    machine = Machine(use=None)
    team = machine.team(2)

    machine.turn(team, STACKED)

    assert machine.sizes == [1]


def test_a_team_that_gets_its_cpus_stays():
    machine = Machine(use=None)
    team = machine.team(2)

    machine.turn(team, ALONE)

    assert machine.sizes == []


def test_a_cpu_that_comes_free_is_used():
    machine = Machine(use=None)
    team = machine.team(2)

    for use in (STACKED, CpuUse(waiting=0.0, idle=0.1), ONE_FREE):
        machine.turn(team, use)

    assert machine.sizes == [1, 2]


def test_a_large_team_leaves_as_many_cpus_as_it_lacks():
    machine = Machine(use=None)
    team = machine.team(16)

    machine.turn(team, CpuUse(waiting=5.2, idle=0.0))
    machine.turn(team, CpuUse(waiting=0.1, idle=3.4))

    assert machine.sizes == [11, 14]


def test_counters_are_read_now_and_then_not_at_every_step():
    machine = Machine(use=ALONE)
    team = machine.team(2)

    for _ in range(1000):
        machine.now_s += READ_EVERY_S / 100
        team.turn()

    assert 5 <= machine.readings <= 10


def test_one_thread_is_never_measured():
    machine = Machine(use=ONE_FREE)
    team = machine.team(1)

    machine.turn(team, STACKED)

    assert machine.readings == 0


@given(
    most=st.integers(1, 64),
    uses=st.lists(st.none() | st.builds(CpuUse, waiting=st.floats(0, 200), idle=st.floats(0, 200)), max_size=30),
)
def test_a_team_has_at_least_one_thread_and_never_too_many(most: int, uses: list[CpuUse | None]):
    machine = Machine(use=None)
    team = machine.team(most)

    for use in uses:
        machine.turn(team, use)

    assert all(1 <= size <= most for size in machine.sizes)
    assert all(a != b for a, b in zip([most, *machine.sizes], machine.sizes, strict=False))
