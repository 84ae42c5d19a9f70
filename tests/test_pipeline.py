"""The table of flights: whatever happens in whatever order, no picture and no slot is lost."""

import random

from hypothesis import given
from hypothesis import strategies as st

from maskdrop.death import Death, Ending
from maskdrop.inbox.supply import Candidate
from maskdrop.supervisor.pipeline import Flight, Pipeline, Step, is_hopeless
from maskdrop.ticket import Facts, Fault, Identity, Infer, Quarantine, Region, Save, Stage

FACTS = Facts("00", 10, 10)
FAULT = Fault(Stage.PREPROCESS, "Broken", "broken")
WORKERS = {
    Step.PREPARE: ("preprocess-0", "preprocess-1"),
    Step.INFER: ("infer-0",),
    Step.LOCATE: ("preprocess-0", "preprocess-1"),
    Step.SAVE: ("save-0", "save-1"),
    Step.QUARANTINE: ("save-0", "save-1"),
}


REGION = Region(10, 20, 110, 120)


def candidate(index: int) -> Candidate:
    return Candidate(f"{index}.jpg", Identity(1, index, 1, 1), 1.0)


def accept(pipeline: Pipeline, count: int) -> list[Flight]:
    return [pipeline.accept(candidate(index), 0.0) for index in range(count)]


def to_infer(pipeline: Pipeline, count: int) -> None:
    for flight in accept(pipeline, count):
        pipeline.assign(Step.PREPARE, "preprocess-0")
        pipeline.prepared(flight.number, FACTS, 1.0)


def test_a_picture_goes_through_in_order_and_frees_its_slot() -> None:
    pipeline = Pipeline(1)
    (flight,) = accept(pipeline, 1)
    assert pipeline.free_slots == 0
    for step in (Step.PREPARE, Step.INFER, Step.SAVE):
        assert pipeline.waiting(step) == 1
        assert pipeline.assign(step, WORKERS[step][0]).number == flight.number
        assert pipeline.waiting(step) == 0
        if step is Step.PREPARE:
            pipeline.prepared(flight.number, FACTS, 2.0)
        elif step is Step.INFER:
            pipeline.inferred(flight.number, 3.0)
    ended = pipeline.finish(flight.number)
    assert dict(ended.milliseconds) == {"settle": 1.0, "preprocess": 2.0, "infer": 3.0}
    assert pipeline.free_slots == 1
    assert len(pipeline) == 0


def test_small_faces_are_looked_at_again_once() -> None:
    pipeline = Pipeline(2)
    to_infer(pipeline, 2)
    for number in (1, 2):
        pipeline.assign(Step.INFER, "infer-0")
        pipeline.inferred(number, 1.0, is_small=True)
    assert pipeline.waiting(Step.LOCATE) == 2
    for regions in ((REGION,), ()):
        flight = pipeline.assign(Step.LOCATE, "preprocess-0")
        pipeline.located(flight.number, regions, 2.0)
    assert pipeline[2].step is Step.SAVE, "where no face is found the first labels stand"
    flight = pipeline.assign(Step.INFER, "infer-0")
    assert flight.task() == Infer(1, flight.slot, 1)
    pipeline.inferred(1, 3.0, is_small=True)
    assert pipeline[1].step is Step.SAVE, "once is enough"
    assert dict(pipeline[1].milliseconds) == {
        "settle": 1.0,
        "preprocess": 1.0,
        "infer": 1.0,
        "locate": 2.0,
        "infer again": 3.0,
    }
    tasks = [pipeline.assign(Step.SAVE, f"save-{n}").task() for n in range(2)]
    assert [task.regions for task in tasks if isinstance(task, Save)] == [(), (REGION,)]


def test_what_a_dead_worker_held_goes_round_again_in_order_and_only_work_counts() -> None:
    pipeline = Pipeline(8)
    to_infer(pipeline, 5)
    for _ in range(4):
        pipeline.assign(Step.INFER, "infer-0")
    pipeline.begin("infer-0", (1, 2))
    held = pipeline.lost("infer-0", Death(Ending.DIED, "signal 9 (SIGKILL)"), max_attempts=3)
    assert [(flight.number, flight.attempts) for flight in held] == [(1, 1), (2, 1), (3, 0), (4, 0)]
    assert [pipeline.assign(Step.INFER, "infer-0").number for _ in range(5)] == [1, 2, 3, 4, 5]


def test_a_picture_that_kills_is_condemned_only_when_it_was_alone() -> None:
    pipeline = Pipeline(4)
    to_infer(pipeline, 2)
    for _ in range(3):  # both at work: nobody knows which of them did it
        for _ in range(2):
            pipeline.assign(Step.INFER, "infer-0")
        pipeline.begin("infer-0", (1, 2))
        assert all(
            f.step is Step.INFER
            for f in pipeline.lost("infer-0", Death(Ending.DIED, "signal 11 (SIGSEGV)"), 2)
        )
    pipeline.assign(Step.INFER, "infer-0")
    pipeline.begin("infer-0", (1,))
    (guilty,) = pipeline.lost("infer-0", Death(Ending.DIED, "signal 11 (SIGSEGV)"), 2)
    assert guilty.step is Step.QUARANTINE
    task = pipeline.assign(Step.QUARANTINE, "save-0").task()
    assert isinstance(task, Quarantine)
    assert (task.fault.error, task.fault.stage, task.attempts) == ("WorkerDied", Stage.INFER, 4)
    assert "signal 11 (SIGSEGV)" in task.fault.message
    assert pipeline[2].step is Step.INFER


def test_attempts_count_anew_in_each_step_so_that_a_batch_is_not_punished() -> None:
    pipeline = Pipeline(4)
    to_infer(pipeline, 2)
    for _ in range(2):
        pipeline.assign(Step.INFER, "infer-0")
    pipeline.begin("infer-0", (1, 2))
    pipeline.lost("infer-0", Death(Ending.DIED, "signal 9 (SIGKILL)"), 2)
    assert pipeline.assign(Step.INFER, "infer-0").number == 1
    pipeline.begin("infer-0", (1,))
    pipeline.inferred(1, 1.0)
    assert pipeline[1].attempts == 0
    pipeline.assign(Step.SAVE, "save-0")
    (flight,) = pipeline.lost("save-0", Death(Ending.DIED, "signal 9 (SIGKILL)"), 2)
    assert (flight.step, flight.attempts) == (Step.SAVE, 1)


def test_of_a_batch_done_in_halves_only_the_half_at_work_counts() -> None:
    pipeline = Pipeline(4)
    to_infer(pipeline, 3)
    for _ in range(3):
        pipeline.assign(Step.INFER, "infer-0")
    pipeline.begin("infer-0", (1, 2, 3))
    pipeline.begin("infer-0", (1,))
    held = pipeline.lost("infer-0", Death(Ending.DIED, "want of memory"), 1)
    assert [flight.condemned_after for flight in held] == [1, 0, 0]
    assert [flight.attempts for flight in held] == [0, 0, 0]
    assert [flight.step for flight in held] == [Step.QUARANTINE, Step.INFER, Step.INFER]


def test_the_reason_of_a_hang_names_it() -> None:
    pipeline = Pipeline(1)
    accept(pipeline, 1)
    for _ in range(2):
        pipeline.assign(Step.PREPARE, "preprocess-0")
        (flight,) = pipeline.lost("preprocess-0", Death(Ending.HUNG, "nothing heard for 3 s"), 2)
    assert flight.fault is not None
    assert (flight.fault.error, flight.condemned_after) == ("StageTimeout", 2)
    assert "nothing heard for 3 s" in flight.fault.message


def test_a_death_while_quarantining_finds_no_other_fault() -> None:
    pipeline = Pipeline(1)
    (flight,) = accept(pipeline, 1)
    pipeline.assign(Step.PREPARE, "preprocess-0")
    pipeline.condemn(flight.number, FAULT)
    for deaths in range(1, 6):
        pipeline.assign(Step.QUARANTINE, "save-0")
        (after,) = pipeline.lost("save-0", Death(Ending.DIED, "exit code 1"), 3)
        assert (after.step, after.fault) == (Step.QUARANTINE, FAULT)
        assert is_hopeless(after, 3) == (deaths >= 3)


@given(st.integers(1, 6), st.integers(0, 2**32))
def test_no_slot_is_shared_or_lost_and_every_flight_has_one_place(slots: int, seed: int) -> None:
    chance, pipeline, accepted, ended = random.Random(seed), Pipeline(slots), 0, 0
    held: dict[str, list[int]] = {worker: [] for workers in WORKERS.values() for worker in workers}

    def end_step(number: int) -> None:
        nonlocal ended
        match pipeline[number].step:
            case Step.PREPARE if chance.random() < 0.3:
                pipeline.condemn(number, FAULT)
            case Step.PREPARE:
                pipeline.prepared(number, FACTS, 1.0)
            case Step.INFER:
                pipeline.inferred(number, 1.0, is_small=chance.random() < 0.5)
            case Step.LOCATE:
                pipeline.located(number, chance.choice([(), (REGION,)]), 1.0)
            case _ if chance.random() < 0.2:
                pipeline.put_back(number)
            case _:
                pipeline.finish(number)
                ended += 1

    for _ in range(120):
        step = chance.choice(list(Step))
        worker = chance.choice(WORKERS[step])
        action = chance.random()
        if action < 0.3 and pipeline.free_slots:
            pipeline.accept(candidate(accepted), 0.0)
            accepted += 1
        elif action < 0.6 and pipeline.waiting(step):
            held[worker].append(pipeline.assign(step, worker).number)
        elif action < 0.9 and held[worker]:
            end_step(held[worker].pop(chance.randrange(len(held[worker]))))
        elif action >= 0.95:
            lost = pipeline.lost(worker, Death(Ending.DIED, "signal 9"), 2)
            assert [flight.number for flight in lost] == sorted(held[worker])
            held[worker].clear()

        in_flight = [number for number in range(1, accepted + 1) if number in pipeline]
        used = [pipeline[number].slot for number in in_flight]
        assert len(set(used)) == len(used) == len(pipeline) == slots - pipeline.free_slots
        assert accepted == ended + len(pipeline)
        assert len(pipeline) == sum(pipeline.waiting(step) for step in Step) + sum(map(len, held.values()))
        for name, numbers in held.items():
            assert [flight.number for flight in pipeline.held_by(name)] == sorted(numbers)
