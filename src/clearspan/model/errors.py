"""Every error Clearspan raises on purpose.

ClearspanError                 code, message, fields: what a dialect needs to answer
├── InvalidInput               the caller's data or words are wrong; nothing was done
│   ├── InvalidFilter          a filter names an unknown field or operator, or a wrong value
│   ├── InvalidPage            page, page_size, cursor or sort_by is out of range or unknown
│   ├── InvalidTime            a time that cannot be read, or a window that ends before it starts
│   ├── InvalidPayload         an ingest body that cannot be decoded
│   ├── InvalidProof           a receipt, tree head, key or proof that does not hold
│   └── PayloadTooLarge        a body, an unpacked body or an attribute over its limit
├── NotAuthenticated           no key, an unknown, revoked or expired one
├── NotPermitted               a known key without the scope, project or environment asked for
├── NotFound                   there is nothing under that id that the caller may see
├── Conflict                   the state of things forbids it now (a hold, a changed count)
│   └── Held                   a hold forbids the deletion
├── Unguarded                  a deletion without filter, window or within its limit; nothing was deleted
├── ReadTooSlow                a read took longer than it may and was ended; the same one would again
├── Overloaded                 the queue is full or the disk is; try again after `retry_after_s`
├── IllegalTransition          a deletion was asked to move between states that are not joined
└── StoreDamaged               a stored invariant does not hold
"""

from __future__ import annotations


class ClearspanError(Exception):
    """Something went wrong."""

    code = "error"

    def __init__(self, message: str | None = None, *, code: str | None = None, fields: tuple[str, ...] = ()) -> None:
        """
        Args:
            message: one sentence for the person who reads the answer; defaults to the class's docstring.
            code: stable snake_case name; defaults to the class's own.
            fields: the keys of the input that the error is about, as the caller spelled them.
        """
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.code = code or type(self).code
        self.fields = fields
        super().__init__(self.message)


class InvalidInput(ClearspanError):
    """The request is not valid."""

    code = "invalid_input"


class InvalidFilter(InvalidInput):
    """The filter is not valid."""

    code = "invalid_filter"


class InvalidPage(InvalidInput):
    """The page asked for is not valid."""

    code = "invalid_page"


class InvalidTime(InvalidInput):
    """The time or time window is not valid."""

    code = "invalid_time"


class InvalidPayload(InvalidInput):
    """The body could not be decoded."""

    code = "invalid_payload"


class InvalidProof(InvalidInput):
    """The receipt, tree head, key or proof does not hold."""

    code = "invalid_proof"


class PayloadTooLarge(InvalidInput):
    """The body is larger than allowed."""

    code = "payload_too_large"


class NotAuthenticated(ClearspanError):
    """A valid API key is needed."""

    code = "not_authenticated"


class NotPermitted(ClearspanError):
    """This API key may not do that."""

    code = "not_permitted"


class NotFound(ClearspanError):
    """Nothing was found under that id."""

    code = "not_found"


class Conflict(ClearspanError):
    """The present state does not allow that."""

    code = "conflict"


class Held(Conflict):
    """A hold forbids this deletion."""

    code = "held"


class Unguarded(ClearspanError):
    """The deletion was refused by a guard; nothing was deleted."""

    code = "unguarded"


class ReadTooSlow(ClearspanError):
    """The search took too long and was ended; narrow the filter or the time window."""

    code = "read_too_slow"


class Overloaded(ClearspanError):
    """The server cannot take more just now."""

    code = "overloaded"

    def __init__(self, message: str | None = None, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class IllegalTransition(ClearspanError):
    """A deletion cannot move between these two states."""

    code = "illegal_transition"


class StoreDamaged(ClearspanError):
    """A stored invariant does not hold."""

    code = "store_damaged"
