"""Are these bytes one value of an Avro schema, and nothing else? Asked before anything is made of them.

fastavro reads on where the specification ends: it takes trailing bytes, negative indexes of enums and unions, any byte
for a boolean, numbers and decimals that their type cannot hold, and makes room for as many items as five bytes claim.
This is a walk over the bytes by the specification's binary encoding (https://avro.apache.org/docs/1.12.0/specification,
"Binary encoding") that builds no value. Numbers may be written in more bytes than they need, up to ten (an index of an
enum or union up to five), as all readers take them so.
"""

from collections.abc import Callable
from typing import Any

from schemas.wire import FIXED_SIZES, LONG, Body, Budget, Check, DecodeError, enum, fixed, index, primitive, text


def compile_check(schema: Any, budget: Budget | None = None) -> Callable[[bytes], None]:
    """A callable that raises DecodeError unless its bytes are one value of `schema` (fastavro's parsed form)."""
    allowed = budget or Budget()
    check = _Compiler().compile(schema)

    def check_all(data: bytes) -> None:
        if len(data) > allowed.size:
            raise DecodeError("TOO_LARGE", f"{len(data)} bytes, and {allowed.size} are allowed")
        end = check(Body(data, allowed), 0)
        if end != len(data):
            raise DecodeError("TRAILING_BYTES", f"{len(data) - end} bytes follow the value")

    return check_all


class _Compiler:
    """Turns a schema into checks, once; named types by name, as they may hold themselves."""

    def __init__(self) -> None:
        self._named: dict[str, Check] = {}
        self._smallest: dict[str, int] = {}

    def compile(self, schema: Any) -> Check:
        """The check of one type."""
        if isinstance(schema, list):
            return self._union(schema)
        declared = schema if isinstance(schema, dict) else {"type": schema}
        kind = declared["type"]
        if kind in ("record", "error"):
            return self._record(declared)
        if kind in ("array", "map"):
            return self._blocks(declared)
        if kind in ("enum", "fixed"):
            self._named[declared["name"]] = enum(declared) if kind == "enum" else fixed(declared)
            self._smallest[declared["name"]] = 1 if kind == "enum" else declared["size"]
            return self._named[declared["name"]]
        return primitive(declared) or (lambda body, at: self._named[kind](body, at))

    def _record(self, declared: dict[str, Any]) -> Check:
        name, fields = declared["name"], []
        self._named[name] = lambda body, at: check(body, at)
        self._smallest[name] = 0  # while its own fields are compiled: a record that holds itself
        fields = [self.compile(field["type"]) for field in declared["fields"]]
        self._smallest[name] = sum(self._size(field["type"]) for field in declared["fields"])

        def check(body: Body, at: int) -> int:
            body.enter()
            for field in fields:
                at = field(body, at)
            body.depth += 1
            return at

        return check

    def _blocks(self, declared: dict[str, Any]) -> Check:
        is_map = declared["type"] == "map"
        item = self.compile(declared["values" if is_map else "items"])
        smallest = self._size(declared["values" if is_map else "items"]) + is_map

        def check_item(body: Body, at: int) -> int:
            return item(body, text(body, at))

        return _block_check(check_item if is_map else item, smallest)

    def _union(self, branches: list[Any]) -> Check:
        checks = [self.compile(branch) for branch in branches]

        def check(body: Body, at: int) -> int:
            branch, at = index(body, at, len(checks), "BAD_UNION")
            return checks[branch](body, at)

        return check

    def _size(self, schema: Any) -> int:
        """The fewest bytes that a value takes; for a type that was compiled."""
        if isinstance(schema, list):
            return 1 + min(map(self._size, schema))
        declared = schema if isinstance(schema, dict) else {"type": schema}
        named = self._smallest.get(str(declared.get("name", declared["type"])))
        return FIXED_SIZES.get(declared["type"], 1) if named is None else named


def _block_check(item: Check, smallest: int) -> Check:
    def check(body: Body, at: int) -> int:
        body.enter()
        while True:
            count, at = body.varint(at, 64, LONG)
            if count == 0:
                body.depth += 1
                return at
            end = None
            if count < 0:
                size, at = body.varint(at, 64, LONG)
                end = at + size
                if count == LONG[0] or not 0 <= size <= body.end - at:
                    raise DecodeError("BAD_BLOCK", f"a block of {-count} items in {size} bytes before byte {at}")
            # Before the first item is looked at: a count is all that five bytes need to claim millions.
            body.items -= abs(count)
            if body.items < 0:
                raise DecodeError("TOO_MANY_ITEMS", f"{abs(count)} items are claimed before byte {at}")
            body.skip(at, abs(count) * smallest)
            for _ in range(abs(count)):
                at = item(body, at)
            if end not in (None, at):
                raise DecodeError("BAD_BLOCK", f"a block ends at byte {at}, and says that it ends at {end}")

    return check
