"""Parsers for untrusted decoded CBOR: each checks one shape and returns the trusted value.

A parser is a function that returns the value or raises `ShapeError`; the error gathers the path
to the faulty place on its way out (`inputs[3].node.size`), so that parsing right input pays
nothing for it.  What the shapes mean is not known here (`wire.py` knows).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Parser = Callable[[Any], T]


class ShapeError(ValueError):
    """A value breaks `rule` (a verb phrase) at `path`."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.path: tuple[str | int, ...] = ()

    def within(self, step: str | int) -> ShapeError:
        """The same error, seen from one level further out."""
        self.path = (step, *self.path)
        return self

    @property
    def field(self) -> str:
        """The path in its dotted form; `message` for the whole value."""
        text = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in self.path)
        return text.removeprefix(".") or "message"

    @property
    def index(self) -> int | None:
        """The outermost index on the path."""
        return next((step for step in self.path if isinstance(step, int)), None)


def boolean(value: Any) -> bool:
    """`true` or `false`."""
    if type(value) is not bool:
        raise ShapeError("must be true or false")
    return value


def unsigned(value: Any) -> int:
    """An integer from 0 to 2^64-1."""
    if type(value) is not int or not 0 <= value < 2**64:
        raise ShapeError("must be an integer from 0 to 2^64-1")
    return value


def text(value: Any) -> str:
    """Text without NUL."""
    if type(value) is not str:
        raise ShapeError("must be text")
    if "\0" in value:
        raise ShapeError("must not hold NUL")
    return value


def octets(value: Any) -> bytes:
    """A byte string."""
    if type(value) is not bytes:
        raise ShapeError("must be a byte string")
    return value


def one_of(*choices: T) -> Parser[T]:
    """One of a few known texts."""

    def parse(value: Any) -> T:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise ShapeError(f"must be one of {', '.join(map(str, choices))}")

    return parse


def checked(make: Callable[[Any], T], parse: Parser[Any]) -> Parser[T]:
    """`make` of what `parse` returns; a ValueError of `make` is the rule that was broken."""

    def parse_checked(value: Any) -> T:
        try:
            return make(parse(value))
        except ShapeError:
            raise
        except ValueError as error:
            raise ShapeError(f"is refused: {error}") from None

    return parse_checked


def array(item: Parser[T]) -> Parser[tuple[T, ...]]:
    """An array of `item`s."""

    def parse(value: Any) -> tuple[T, ...]:
        if type(value) is not list:
            raise ShapeError("must be an array")
        items: list[T] = []
        append = items.append
        try:
            for element in value:
                append(item(element))
        except ShapeError as error:
            raise error.within(len(items)) from None
        return tuple(items)

    return parse


def nullable(item: Parser[T]) -> Parser[T | None]:
    """`null` or an `item`."""
    return lambda value: None if value is None else item(value)


def record(make: Callable[..., T], /, **fields: Parser[Any]) -> Parser[T]:
    """A map with exactly these fields, given to `make` by name."""
    names = fields.keys()
    items = tuple(fields.items())

    def parse(value: Any) -> T:
        if type(value) is not dict:
            raise ShapeError("must be a map")
        if value.keys() != names:
            raise _wrong_keys(value, names)
        parsed = {}
        name = ""
        try:
            for name, parser in items:
                parsed[name] = parser(value[name])
        except ShapeError as error:
            raise error.within(name) from None
        try:
            return make(**parsed)
        except ShapeError:
            raise
        except ValueError as error:
            raise ShapeError(f"is refused: {error}") from None

    return parse


def _wrong_keys(value: Mapping[Any, Any], names: Any) -> ShapeError:
    missing = sorted(names - value.keys())
    if missing:
        return ShapeError("is missing").within(missing[0])
    unknown = min(str(key) for key in value.keys() - names)
    return ShapeError(f"has an unknown field {unknown[:40]!r}")


def sorted_map(key: str, parse_key: Parser[Any], value: str, parse_value: Parser[T]) -> Parser[Any]:
    """An array of two-field maps in ascending, unique order of `key`; returns a dict."""
    pairs = array(
        record(lambda **pair: (pair[key], pair[value]), **{key: parse_key, value: parse_value})
    )

    def parse(raw: Any) -> dict[Any, T]:
        parsed = pairs(raw)
        for index in range(1, len(parsed)):
            if not parsed[index - 1][0] < parsed[index][0]:
                raise ShapeError(f"must be sorted by {key}, without duplicates").within(index)
        return dict(parsed)

    return parse


def integers_by_name(value: Any) -> dict[str, int]:
    """A map from any texts to unsigned integers."""
    if type(value) is not dict:
        raise ShapeError("must be a map")
    return {text(name): unsigned(number) for name, number in value.items()}
