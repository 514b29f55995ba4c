from __future__ import annotations

from random import Random

from leastwise.ledger import SOURCES, Feedback, first_id, new_id, strongest

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford: no I, L, O, U


def seeded(seed: int) -> Random:
    return Random(seed)


def decoded(id_: str) -> tuple[int, int]:
    """Read a ULID as its specification says: 48 bits of milliseconds, 80 of noise."""
    number = 0
    for letter in id_:
        number = number * 32 + ALPHABET.index(letter)
    return number >> 80, number & ((1 << 80) - 1)


def test_an_id_holds_its_millisecond_and_eighty_random_bits() -> None:
    id_ = new_id(1_763_900_000.123, seeded(7))

    assert 26 == len(id_)
    assert (1_763_900_000_123, seeded(7).getrandbits(80)) == decoded(id_)


def test_the_example_of_the_specification() -> None:
    assert "01ARYZ6S41" == new_id(1_469_918_176.385, seeded(1))[:10]


def test_ids_sort_by_time() -> None:
    rng = seeded(3)
    times = [0.0, 1.0, 1_469_918_176.385, 1_763_900_000.0, 1_763_900_000.002, 4_102_444_800.0]
    ids = [new_id(at, rng) for at in times]

    assert ids == sorted(ids)


def test_the_first_id_of_a_time_divides_what_is_older_from_what_is_not() -> None:
    rng = seeded(4)

    assert new_id(1_763_900_000.122, rng) < first_id(1_763_900_000.123) <= new_id(1_763_900_000.123, rng)
    assert (1_763_900_000_123, 0) == decoded(first_id(1_763_900_000.123))


def test_a_hundred_thousand_ids_of_one_moment_differ() -> None:
    rng = seeded(5)

    assert 100_000 == len({new_id(1_763_900_000.0, rng) for _ in range(100_000)})


def test_of_all_that_is_said_of_an_answer_the_user_counts_before_tests_before_agreement() -> None:
    user, tests, agreement = (Feedback("X", at == 1, source, at) for at, source in enumerate(SOURCES))

    assert ("user", "tests", "agreement") == SOURCES
    assert user == strongest([agreement, user, tests])
    assert tests == strongest([agreement, tests])
    assert None is strongest([])
