"""Reads regular expressions of Java as trees, for `conf.regex_growth` to judge: what matches, not what is captured."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

Holds = Callable[[int], bool]
"""Whether a character, by its code point, is in a class."""

ENDS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "a": "\a", "e": "\x1b"}
DIGIT, SPACE, H_SPACE = "0123456789", " \t\n\x0b\f\r", " \t\xa0"
V_SPACE = "\n\x0b\f\r\x85\u2028\u2029"
WORD = DIGIT + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
CLASSES = {"d": DIGIT, "s": SPACE, "w": WORD, "h": H_SPACE, "v": V_SPACE}
LINE_ENDS = "\n\r\x85\u2028\u2029"
POSIX: dict[str, Callable[[str], bool]] = {
    **{"Lower": str.islower, "Upper": str.isupper, "Alpha": str.isalpha, "Digit": str.isdigit, "Alnum": str.isalnum},
    **{"Punct": lambda c: 33 <= ord(c) < 127 and not c.isalnum(), "Graph": lambda c: 33 <= ord(c) < 127},
    **{"Print": lambda c: 32 <= ord(c) < 127, "Blank": lambda c: c in " \t", "Cntrl": lambda c: not c.isprintable()},
    **{"XDigit": lambda c: c in "0123456789abcdefABCDEF", "Space": lambda c: c in SPACE, "ASCII": str.isascii},
    **{"IsAlphabetic": str.isalpha, "IsLetter": str.isalpha, "IsDigit": str.isdigit, "IsUppercase": str.isupper},
    **{"IsLowercase": str.islower, "IsWhite_Space": str.isspace},
}
CATEGORIES = frozenset({f"{major}{minor}" for major in "LMNPSZC" for minor in ("", *"cdefiklmnopstu")})


class UnreadableError(Exception):
    """A construct that is not understood here, or no regular expression."""


@dataclass(frozen=True)
class Chars:
    """One character of a class."""

    holds: Holds


@dataclass(frozen=True)
class Sequence:
    """One part after the other; nothing at all, where there is none."""

    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Choice:
    """Any of its parts."""

    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Repeat:
    """A part `least` to `most` times; None: without end."""

    part: "Node"
    least: int
    most: int | None


@dataclass(frozen=True)
class Atomic:
    """A part that is matched in one way only, once it has matched: `(?>x)`, `x*+`."""

    part: "Node"


Node = Chars | Sequence | Choice | Repeat | Atomic
NOTHING = Sequence(())


class Parser:
    """Reads one pattern.

    `points` are the characters that it names, `apart` what is matched beside the text: lookarounds. `refers_back`: it
    has back references, which are read as nothing.
    """

    def __init__(self, pattern: str) -> None:
        self._text, self._at = pattern, 0
        self._ignores_case = self._dot_is_all = False
        self.points: set[int] = set()
        self.apart: list[Node] = []
        self.refers_back = False

    def parse(self) -> Node:
        """Return the tree; raises UnreadableError."""
        node = self._choice()
        if self._at < len(self._text):
            raise UnreadableError("a parenthesis is closed that was not opened")
        return node

    def _choice(self) -> Node:
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        return Choice(tuple(parts)) if len(parts) > 1 else parts[0]

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            parts.append(self._repeated(self._atom()))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _repeated(self, node: Node) -> Node:
        while True:
            bounds = self._bounds()
            if bounds is None:
                return node
            node = Repeat(node, *bounds)
            if self._take("+"):
                node = Atomic(node)
            else:
                self._take("?")

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        if not self._take("{"):
            return None
        least, comma, most = self._until("}").partition(",")
        try:
            return int(least), int(most) if most.strip() else None if comma else int(least)
        except ValueError:
            raise UnreadableError("a repetition is no number") from None

    def _atom(self) -> Node:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return Chars(self._folded(self._class()))
        if char == ".":
            ends = "" if self._dot_is_all else LINE_ENDS
            return Chars(lambda point: chr(point) not in ends)
        if char in "^$":
            return NOTHING
        if char == "\\":
            return self._escaped()
        return self._literal(char)

    def _literal(self, char: str) -> Node:
        self.points.add(ord(char))
        return Chars(self._folded(lambda point: chr(point) == char))

    def _group(self) -> Node:
        flags = self._ignores_case, self._dot_is_all
        is_atomic = is_apart = False
        if self._take("?"):
            if self._take(">"):
                is_atomic = True
            elif any(self._take(sign) for sign in ("=", "!", "<=", "<!")):
                is_apart = True
            elif self._take("<"):
                self._until(">")
            elif self._flags():
                return NOTHING
        node = self._choice()
        if not self._take(")"):
            raise UnreadableError("a parenthesis is not closed")
        self._ignores_case, self._dot_is_all = flags
        if is_apart:
            self.apart.append(node)
            return NOTHING
        return Atomic(node) if is_atomic else node

    def _flags(self) -> bool:
        """Read flags; return whether they hold to the end of the group around them."""
        is_on = True
        while (char := self._next()) not in ":)":
            if char in "xc" or char not in "-imsuUd":
                raise UnreadableError(f"the flag {char}")
            is_on = is_on and char != "-"
            self._ignores_case = is_on if char == "i" else self._ignores_case
            self._dot_is_all = is_on if char == "s" else self._dot_is_all
        return char == ")"

    def _escaped(self) -> Node:
        char = self._next()
        if char in "bBAGzZ":
            return NOTHING
        if char in "RX":
            return Chars(lambda point: char == "X" or chr(point) in V_SPACE)
        if char == "Q":
            return Sequence(tuple(map(self._literal, self._until("\\E", may_lack=True))))
        if char in "123456789k":
            if char == "k":
                self._until(">")
            self.refers_back = True
            return NOTHING
        return Chars(self._folded(self._escaped_class(char)))

    def _escaped_class(self, char: str) -> Holds:
        if char.lower() in CLASSES:
            members, is_inside = CLASSES[char.lower()], char.islower()
            return lambda point: (chr(point) in members) == is_inside
        if char in "pP":
            return self._property(is_inside=char == "p")
        only = self._escaped_char(char)
        self.points.add(only)
        return lambda point: point == only

    def _escaped_char(self, char: str) -> int:
        try:
            if char == "x":
                return int(self._until("}") if self._take("{") else self._take_some(2), 16)
            if char == "u":
                return int(self._take_some(4), 16)
            if char == "0":
                digits = self._take_some(1)
                while len(digits) < 3 and self._text[self._at : self._at + 1] in tuple("01234567"):
                    digits += self._next()
                return int(digits, 8)
        except ValueError:
            raise UnreadableError("a number of a character") from None
        if char == "c":
            return ord(self._next()) ^ 64
        if char in ENDS:
            return ord(ENDS[char])
        if char.isascii() and char.isalnum():
            raise UnreadableError(f"\\{char}")
        return ord(char)

    def _property(self, is_inside: bool) -> Holds:
        name = self._until("}") if self._take("{") else self._next()
        short = name.rpartition("=")[2].removeprefix("Is")
        if name in POSIX:
            test = POSIX[name]
            return lambda point: test(chr(point)) == is_inside
        if short in CATEGORIES:
            return lambda point: unicodedata.category(chr(point)).startswith(short) == is_inside
        return lambda point: True  # a script, a block: it may hold any

    def _class(self) -> Holds:
        is_inside = not self._take("^")
        groups: list[list[Holds]] = [[]]
        while True:
            if self._take("]"):
                if any(groups):
                    break
                groups[-1].append(lambda point: point == ord("]"))  # the first in a class stands for itself
            elif self._take("&&"):
                groups.append([])
            elif self._take("["):
                groups[-1].append(self._class())
            else:
                groups[-1].append(self._range())
        filled = [group for group in groups if group]
        return lambda point: all(any(holds(point) for holds in group) for group in filled) == is_inside

    def _range(self) -> Holds:
        char = self._next()
        if char == "\\":
            char = self._next()
            if char == "Q":
                members = self._until("\\E")
                self.points.update(map(ord, members))
                return lambda point: chr(point) in members
            if char.lower() in CLASSES or char in "pP":
                return self._escaped_class(char)
            first = self._escaped_char(char)
        else:
            first = ord(char)
        last = first
        if self._text[self._at : self._at + 1] == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", "["):
            self._next()
            char = self._next()
            last = self._escaped_char(self._next()) if char == "\\" else ord(char)
        self.points |= {first, last}
        return lambda point: first <= point <= last

    def _folded(self, holds: Holds) -> Holds:
        if not self._ignores_case:
            return holds
        return lambda point: any(holds(ord(c)) for c in {chr(point).lower()[0], chr(point).upper()[0]})

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise UnreadableError("it ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _take(self, sign: str) -> bool:
        if not self._text.startswith(sign, self._at):
            return False
        self._at += len(sign)
        return True

    def _take_some(self, count: int) -> str:
        return "".join(self._next() for _ in range(count))

    def _until(self, sign: str, may_lack: bool = False) -> str:
        end = self._text.find(sign, self._at)
        if end < 0 and not may_lack:
            raise UnreadableError(f"no {sign} follows")
        start, end = self._at, end if end >= 0 else len(self._text)
        self._at = min(end + len(sign), len(self._text))
        return self._text[start:end]
