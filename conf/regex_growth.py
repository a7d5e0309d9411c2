"""Judges regular expressions before Java runs them: how the time that they take grows with the length of a text.

Java's matcher tries one way after the other. Where a text can be read in many ways and none fits in the end, it tries
all of them: some patterns take as many steps as the square of the text's length, or twice as many for each character.
The pattern becomes a position automaton (Glushkov, 1961); whether its ways through a text grow exponentially or by
which power is read off products of that automaton with itself (Weber and Seidl, "On the degree of ambiguity of finite
automata", 1991: the criteria EDA and IDA).
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import cache
from itertools import product
from typing import Literal, TypeVar

from conf.regex_syntax import Atomic, Chars, Choice, Node, Parser, Repeat, Sequence, UnreadableError

Growth = Literal["linear", "bounded", "exponential", "polynomial"]
# A text of so many characters is matched in about a million steps where their number grows with its square, and Java's
# matcher, which calls itself for each round of a group, stays within a thread's stack.
LONGEST_TEXT = 1_000
# {n,m} up to FEW rounds is expanded into copies (up to SEVERAL for the power); above, it is treated as unbounded.
FEW, SEVERAL = 8, 100
MOST_POSITIONS, MOST_STEPS = 1_000, 200_000
# One character of each kind that classes tell apart, beside ASCII and what the pattern names.
OTHERS = (0xE9, 0xC9, 0x4E2D, 0x661, 0x301, 0xA0, 0x85, 0x2028, 0x20AC, 0x1F600)


class _TooLargeError(Exception):
    """It would take too long to judge."""


@cache
def growth(pattern: str) -> Growth:
    """Return what a text may do to Java's matcher of the whole `pattern`.

    "linear": nothing. "bounded": where a text has LONGEST_TEXT characters at most, nothing (or it cannot be judged:
    back references, comments within the pattern). "exponential", "polynomial" (of a power above the second): too much.
    """
    parser = Parser(pattern)
    try:
        trees = [parser.parse(), *parser.apart]
        trees += [inner for tree in trees for inner in _atomic(tree)]
        points = sorted({*range(128), *OTHERS, *parser.points})
        powers = [_power(tree, points) for tree in trees]
    except (UnreadableError, _TooLargeError, RecursionError):
        return "bounded"
    if None in powers:
        return "exponential"
    power = max(power for power in powers if power is not None)
    if power > 2:
        return "polynomial"
    return "bounded" if power == 2 or parser.refers_back or any(map(_calls_itself, trees)) else "linear"


def _power(tree: Node, points: list[int]) -> int | None:
    """Return the power of a text's length that its ways grow by; None: they grow exponentially."""
    if _Ways(_Automaton(tree, points, FEW)).are_exponential():
        return None
    try:
        return _Ways(_Automaton(tree, points, SEVERAL)).power()
    except _TooLargeError:
        return _Ways(_Automaton(tree, points, FEW)).power()


def _parts(tree: Node) -> tuple[Node, ...]:
    if isinstance(tree, Sequence | Choice):
        return tree.parts
    return () if isinstance(tree, Chars) else (tree.part,)


def _atomic(tree: Node) -> Iterator[Node]:
    """Yield a part that is matched in one way only, wherever it lies, and so is judged by itself."""
    if isinstance(tree, Atomic):
        yield tree.part
    for part in _parts(tree):
        yield from _atomic(part)


def _calls_itself(tree: Node) -> bool:
    """Return whether a group of more than one character repeats so often that Java's matcher may run out of stack."""
    is_long = isinstance(tree, Repeat) and (tree.most is None or tree.most > LONGEST_TEXT)
    if isinstance(tree, Repeat) and is_long and not isinstance(tree.part, Chars):
        return True
    return any(map(_calls_itself, _parts(tree)))


class _Automaton:
    """A state for each place of the pattern that takes a character; {n,m} up to `few` rounds are copies.

    `chars` are sets of characters, as the bits of a number; `follow` the states that may come next, one as often as
    there are ways to it.
    """

    def __init__(self, tree: Node, points: list[int], few: int) -> None:
        """Raises _TooLargeError."""
        self.points, self.few = points, few
        self.chars: list[int] = []
        self.follow: list[list[int]] = []
        self._add(tree, once=False)

    def _add(self, tree: Node, once: bool) -> tuple[bool, list[int], list[int]]:
        """Add a part: whether it can be empty, and its first and last states; `once`: repetitions have one round."""
        if isinstance(tree, Chars):
            if len(self.chars) >= MOST_POSITIONS:
                raise _TooLargeError
            self.chars.append(sum(1 << bit for bit, point in enumerate(self.points) if tree.holds(point)))
            self.follow.append([])
            state = len(self.chars) - 1
            return False, [state], [state]
        if isinstance(tree, Atomic):
            return self._add(tree.part, once=True)
        if isinstance(tree, Choice):
            parts = [self._add(part, once) for part in tree.parts]
            firsts = [state for _, first, _ in parts for state in first]
            return any(empty for empty, _, _ in parts), firsts, [state for _, _, last in parts for state in last]
        if isinstance(tree, Sequence):
            return self._joined(self._add(part, once) for part in tree.parts)
        return self._repeated(tree, once)

    def _joined(self, parts: Iterable[tuple[bool, list[int], list[int]]]) -> tuple[bool, list[int], list[int]]:
        empty, first, last = True, list[int](), list[int]()
        for part_empty, part_first, part_last in parts:
            for state in last:
                self.follow[state] += part_first
            first = first + part_first if empty else first
            last = last + part_last if part_empty else part_last
            empty = empty and part_empty
        return empty, first, last

    def _repeated(self, tree: Repeat, once: bool) -> tuple[bool, list[int], list[int]]:
        if tree.most == 0:
            return True, [], []
        if once:
            empty, first, last = self._add(tree.part, once)
            return empty or tree.least == 0, first, last
        if tree.most is None or tree.most > self.few:
            empty, first, last = self._add(tree.part, once)
            for state in last:
                self.follow[state] += first
            return empty or tree.least == 0, first, last
        copies = [self._add(tree.part, once) for _ in range(tree.most)]
        # x{1,3} is x(x(x)?)?: after a copy that is left out, no other copy comes.
        rest: tuple[bool, list[int], list[int]] = (True, [], [])
        for copy in reversed(copies[tree.least :]):
            _, first, last = self._joined([copy, rest])
            rest = (True, first, last)
        return self._joined([*copies[: tree.least], rest])


class _Ways:
    """The ways of an automaton through texts."""

    def __init__(self, automaton: _Automaton) -> None:
        self._chars, self._follow = automaton.chars, automaton.follow
        self._steps = 0
        self._loops = _loops(self._follow)
        self._loop_of = {state: number for number, loop in enumerate(self._loops) for state in loop}

    def are_exponential(self) -> bool:
        """Return whether a text may lead in two ways from a state back to it (EDA)."""
        return any(map(self._is_exponential, self._loops))

    def _is_exponential(self, loop: set[int]) -> bool:
        for state in loop:
            inside = [after for after in self._follow[state] if after in loop]
            if len(set(inside)) < len(inside):
                return True
        same: list[tuple[int, ...]] = [(state, state) for state in loop]
        edges: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

        def after(pair: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
            for other in self._together(pair, (loop, loop)):
                edges.setdefault(other, []).append(pair)
                yield other

        reached = set(_reach(same, after))
        back = set(_reach(same, lambda pair: edges.get(pair, ())))
        return any(first != second for first, second in back & reached)

    def power(self) -> int:
        """Return 1 for linear; one more for each two loops in a row that a text may be shared out between (IDA)."""
        numbers = range(len(self._loops))
        after = {
            number: {self._loop_of[state] for state in _reach(loop, self._follow.__getitem__) if state in self._loop_of}
            for number, loop in enumerate(self._loops)
        }

        @cache
        def most(number: int) -> int:
            ahead = (most(other) + self._share(number, other) for other in after[number] if other != number)
            return max(ahead, default=1)

        return max(map(most, numbers), default=1)

    def _share(self, number: int, other: int) -> bool:
        first, second = self._loops[number], self._loops[other]
        every = set(range(len(self._chars)))
        for start, end in product(first, second):
            starts: list[tuple[int, ...]] = [(start, start, end)]
            if (start, end, end) in _reach(starts, lambda states: self._together(states, (first, every, second))):
                return True
        return False

    def _together(self, states: tuple[int, ...], allowed: tuple[set[int], ...]) -> Iterator[tuple[int, ...]]:
        """Yield where one character may lead all of `states`, each to one of those that are allowed for it."""
        options = (
            [after for after in set(self._follow[state]) if after in into]
            for state, into in zip(states, allowed, strict=True)
        )
        for after in product(*options):
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise _TooLargeError
            common = -1
            for state in after:
                common &= self._chars[state]
            if common:
                yield after


State = TypeVar("State", bound=Hashable)


def _reach(starts: Iterable[State], after: Callable[[State], Iterable[State]]) -> Iterator[State]:
    """Yield the states that any of `starts` leads to, these included, each once."""
    reached = set(starts)
    waiting = list(reached)
    yield from waiting
    while waiting:
        for state in after(waiting.pop()):
            if state not in reached:
                reached.add(state)
                waiting.append(state)
                yield state


def _loops(follow: list[list[int]]) -> list[set[int]]:
    """Return the states that lead back to themselves, those that lead to each other together (Kosaraju's algorithm)."""
    before: list[list[int]] = [[] for _ in follow]
    for state, after in enumerate(follow):
        for other in after:
            before[other].append(state)
    order, seen = list[int](), set[int]()
    for state in range(len(follow)):
        order += _left_in_turn(follow, state, seen)
    loops, taken = list[set[int]](), set[int]()
    for state in reversed(order):
        loop = set(_left_in_turn(before, state, taken))
        if len(loop) > 1 or state in follow[state]:
            loops += [loop] if loop else []
    return loops


def _left_in_turn(follow: list[list[int]], start: int, seen: set[int]) -> list[int]:
    """Return the states that `start` leads to, itself included, but those `seen`, each after all that it leads to."""
    if start in seen:
        return []
    seen.add(start)
    left, path = list[int](), [(start, iter(follow[start]))]
    while path:
        state, ahead = path[-1]
        for after in ahead:
            if after not in seen:
                seen.add(after)
                path.append((after, iter(follow[after])))
                break
        else:
            left.append(state)
            path.pop()
    return left
