"""The states of a song: a state changes only as ``TRANSITIONS`` allows, and the first error wins, in any thread."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bandscope_dagster.pipeline.analysis_state import TRANSITIONS, AnalysisState, StateMachine

State = AnalysisState
ERROR = ArithmeticError("the first")

# State → the moves that lead to it.
PATHS = {
    State.READING: (),
    State.TAGGING: (State.TAGGING,),
    State.COMMITTING: (State.TAGGING, State.COMMITTING),
    State.FAILING: (State.FAILING,),
    State.DONE: (State.TAGGING, State.COMMITTING, State.DONE),
    State.FAILED: (State.FAILED,),
}


def machine_in(state: AnalysisState) -> StateMachine:
    machine = StateMachine()
    for to in PATHS[state]:
        assert machine.move(to, ERROR if to in (State.FAILING, State.FAILED) else None)
    assert machine.state is state
    return machine


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("to", State)
def test_a_state_changes_only_to_one_that_may_follow_it(state: AnalysisState, to: AnalysisState) -> None:
    machine = machine_in(state)
    allowed = to in TRANSITIONS[state]
    assert machine.move(to, ValueError("later")) == allowed
    assert machine.state is (to if allowed else state)


def test_every_state_but_the_final_ones_may_fail() -> None:
    final = {state for state, following in TRANSITIONS.items() if not following}
    assert final == {State.DONE, State.FAILED}
    assert set(TRANSITIONS) == set(State)
    for state in set(State) - final:
        assert State.FAILED in TRANSITIONS[state]


def test_the_first_error_is_kept() -> None:
    machine = machine_in(State.FAILING)
    assert not machine.move(State.FAILING, ValueError("the second"))
    assert machine.move(State.FAILED, ValueError("the third"))
    assert machine.error is ERROR
    assert machine_in(State.DONE).error is None


def test_of_threads_that_fail_a_song_at_once_one_wins() -> None:
    threads = 8
    for _ in range(200):
        machine, at_once = StateMachine(), threading.Barrier(threads)

        def fail(number: int, machine: StateMachine = machine, at_once: threading.Barrier = at_once) -> bool:
            at_once.wait(10)
            return machine.move(State.FAILING, ValueError(number))

        with ThreadPoolExecutor(threads) as pool:
            won = list(pool.map(fail, range(threads)))
        assert won.count(True) == 1
        assert machine.error is not None and machine.error.args == (won.index(True),)


@pytest.mark.parametrize("state", [State.COMMITTING, State.FAILING])
def test_waiting_ends_with_the_writers_last_word(state: AnalysisState) -> None:
    machine = machine_in(state)
    waiter = threading.Thread(target=machine.wait_for_writer, daemon=True)
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive()
    machine.move(State.FAILED, ERROR)
    waiter.join(10)
    assert not waiter.is_alive()


@pytest.mark.parametrize("state", [State.READING, State.TAGGING, State.DONE, State.FAILED])
def test_only_the_writers_work_is_waited_for(state: AnalysisState) -> None:
    machine = machine_in(state)
    machine.wait_for_writer()
    assert machine.state is state
