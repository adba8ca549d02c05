"""Webhooks in: a delivery whose signature holds becomes a signal to a run, or the start of one, once.

A sender repeats a delivery until it is answered, and an attacker may repeat what he has overheard. So what
tells deliveries apart here is always something that is signed; a repeated one does nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from duramen import DuramenError, SignalResult, WorkflowDef
from duramen.errors import InvalidArgument, RunIdConflict

from .asgi import read_body
from .sweeping import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from duramen import Runtime

    from .asgi import Receive, Send

__all__ = [
    "BadDelivery",
    "Delivery",
    "GitHub",
    "Scheme",
    "Signal",
    "StandardWebhooks",
    "Start",
    "Stripe",
    "webhook_app",
]

_TOLERANCE = 300.0
"""Seconds that a sender's clock may be off, and a delivery may be late."""


class BadDelivery(Exception):
    """A request is no delivery of that sender, or a forged or an old one. The text is for your log."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery whose signature holds."""

    id: str
    """The same whenever it is repeated, and signed: the key by which repetitions are recognised."""
    body: bytes
    headers: Mapping[str, str]
    """By their names in lower case. They are not signed."""

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            BadDelivery: it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise BadDelivery("the body is no JSON") from None


class Scheme(Protocol):
    """How a sender signs."""

    def verified(self, headers: Mapping[str, str], body: bytes, /, *, now: float | None = None) -> Delivery:
        """Check a request.

        Args:
            headers: by their names in lower case.
            body: as it came, to the byte.
            now: seconds since the epoch. Default: the clock.

        Raises:
            BadDelivery: it is not what the sender signed, or too old.
        """
        ...


class GitHub:
    """``X-Hub-Signature-256``, as GitHub and many others sign: HMAC-SHA256 of the body, without a time.

    Nothing in it says when it was sent, so the id of a delivery is the digest of its body.

    Args:
        secret: what was entered there. Several while it is being changed: each is good.
        header: the name of the header.
    """

    __slots__ = ("_header", "_secrets")

    def __init__(self, secret: str | Sequence[str], *, header: str = "X-Hub-Signature-256") -> None:
        self._secrets = _secrets(secret)
        self._header = header.lower()

    def verified(self, headers: Mapping[str, str], body: bytes, /, *, now: float | None = None) -> Delivery:
        """See `Scheme`."""
        del now
        method, _, signature = headers.get(self._header, "").partition("=")
        if method != "sha256":
            raise BadDelivery(f"there is no signature in the header {self._header!r}")
        wanted = [hmac.new(secret, body, hashlib.sha256).hexdigest() for secret in self._secrets]
        if not _is_one_of(signature, wanted):
            raise BadDelivery("the signature is not that of the body")
        return Delivery(hashlib.sha256(body).hexdigest(), body, headers)


class Stripe:
    """``Stripe-Signature``: HMAC-SHA256 of a time and the body (https://docs.stripe.com/webhooks/signature).

    The id of a delivery is that of its event, which stands in the body.

    Args:
        secret: the endpoint's secret, ``whsec_…``. Several while it is being changed.
        tolerance: seconds by which a delivery may be old.
        header: the name of the header.
    """

    __slots__ = ("_header", "_secrets", "_tolerance")

    def __init__(
        self, secret: str | Sequence[str], *, tolerance: float = _TOLERANCE, header: str = "Stripe-Signature"
    ) -> None:
        self._secrets = _secrets(secret)
        self._tolerance = tolerance
        self._header = header.lower()

    def verified(self, headers: Mapping[str, str], body: bytes, /, *, now: float | None = None) -> Delivery:
        """See `Scheme`."""
        parts = [part.strip().partition("=") for part in headers.get(self._header, "").split(",")]
        at = next((value for name, _, value in parts if name == "t"), "")
        given = [value for name, _, value in parts if name == "v1"]
        if not at or not given:
            raise BadDelivery(f"there is no signature in the header {self._header!r}")
        signed = at.encode() + b"." + body
        wanted = [hmac.new(secret, signed, hashlib.sha256).hexdigest() for secret in self._secrets]
        if not any([_is_one_of(signature, wanted) for signature in given]):  # noqa: C419 - each takes its time
            raise BadDelivery("the signature is not that of the body")
        _check_time(at, self._tolerance, now)
        event = Delivery("", body, headers).json()
        event_id = event.get("id") if isinstance(event, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if not isinstance(event_id, str) or not event_id:
            raise BadDelivery("the event has no id")
        return Delivery(event_id, body, headers)


class StandardWebhooks:
    """``webhook-id``, ``webhook-timestamp``, ``webhook-signature`` (https://www.standardwebhooks.com).

    Args:
        secret: ``whsec_`` and base64, or base64 alone. Several while it is being changed.
        tolerance: seconds by which a delivery may be old.

    Raises:
        InvalidArgument: a secret is no base64.
    """

    __slots__ = ("_secrets", "_tolerance")

    def __init__(self, secret: str | Sequence[str], *, tolerance: float = _TOLERANCE) -> None:
        try:
            self._secrets = [
                base64.b64decode(each.decode().removeprefix("whsec_"), validate=True)
                for each in _secrets(secret)
            ]
        except ValueError:
            raise InvalidArgument(
                "a secret of this scheme is base64, with or without whsec_ before it"
            ) from None
        self._tolerance = tolerance

    def verified(self, headers: Mapping[str, str], body: bytes, /, *, now: float | None = None) -> Delivery:
        """See `Scheme`."""
        delivery_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        given = [
            signature
            for version, _, signature in (
                part.partition(",") for part in headers.get("webhook-signature", "").split()
            )
            if version == "v1"
        ]
        if not delivery_id or not at or not given:
            raise BadDelivery("there is no signature in the headers webhook-id, -timestamp and -signature")
        signed = f"{delivery_id}.{at}.".encode("utf-8", "surrogateescape") + body
        wanted = [
            base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
            for secret in self._secrets
        ]
        if not any([_is_one_of(signature, wanted) for signature in given]):  # noqa: C419 - as above
            raise BadDelivery("the signature is not that of the body")
        _check_time(at, self._tolerance, now)
        return Delivery(delivery_id, body, headers)


@dataclass(frozen=True, slots=True)
class Signal:
    """The delivery is a signal to that run; its id is the signal's."""

    run_id: str
    name: str
    payload: Any = None


@dataclass(frozen=True, slots=True)
class Start:
    """The delivery starts a run; without a `run_id` it is made of the delivery's id."""

    workflow: WorkflowDef[Any, Any] | str
    input: Any = None
    run_id: str | None = None


def webhook_app(
    runtime: Runtime,
    scheme: Scheme,
    route: Callable[[Delivery], Signal | Start | None],
    *,
    max_body: int = 1 << 20,
) -> Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]:
    """Make an ASGI application that takes deliveries by POST. Mount it, one for each sender.

    It answers 200 when the signal or the run is durable (or was already), 202 for a delivery that `route`
    does not want or that came too late (its run has ended), 400 for one that is no delivery of that sender,
    404 for a run that is not there (yet): senders repeat it. 503: the store is out, or the run has no room.

    Args:
        runtime: open, as in the lifespan of your application.
        scheme: how the sender signs.
        route: what a delivery is. A `BadDelivery` that it raises is answered with 400, the rest with 500.
        max_body: bytes; longer ones are answered with 413.

    >>> from duramen import Runtime
    >>> def paid(delivery: Delivery) -> Signal | None:
    ...     event = delivery.json()
    ...     if event["type"] != "payment_intent.succeeded":
    ...         return None
    ...     return Signal(
    ...         event["data"]["object"]["metadata"]["run_id"], "payment-received", event["data"]["object"]
    ...     )
    >>> app = webhook_app(Runtime("memory://"), Stripe("whsec_something-long"), paid)
    """

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"a webhook does not speak {scope['type']!r}: mount it in your application")
        answer = await _answer(runtime, scheme, route, max_body, scope, receive)
        body = answer.encoded()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def _answer(
    runtime: Runtime,
    scheme: Scheme,
    route: Callable[[Delivery], Signal | Start | None],
    max_body: int,
    scope: MutableMapping[str, Any],
    receive: Receive,
) -> Answer:
    if scope["method"] != "POST":
        return Answer(405, {"error": "method not allowed"})
    body = await read_body(receive, max_body)
    if body is None:
        return Answer(413, {"error": "too long"})
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    try:
        delivery = scheme.verified(headers, body)
        wanted = route(delivery)
    except BadDelivery:
        # Whoever forges it learns nothing of why.
        return Answer(400, {"error": "bad delivery"})
    if wanted is None:
        return Answer(202, {"outcome": "ignored"})
    try:
        return await _carried_out(runtime, delivery, wanted)
    except RunIdConflict:
        return Answer(409, {"error": "conflict"})
    except DuramenError as error:
        return Answer(503, {"error": type(error).__name__})


async def _carried_out(runtime: Runtime, delivery: Delivery, wanted: Signal | Start) -> Answer:
    # The id may be of any length and have any character: its digest has not.
    key = hashlib.sha256(delivery.id.encode("utf-8", "surrogateescape")).hexdigest()
    if isinstance(wanted, Start):
        run_id = wanted.run_id or f"webhook:{key}"
        run = await runtime.enqueue(wanted.workflow, wanted.input, run_id=run_id)
        return Answer(200, {"outcome": "started" if run.created else "duplicate", "run_id": run.run_id})
    told = await runtime.signal(wanted.run_id, wanted.name, wanted.payload, signal_id=f"webhook:{key}")
    status = {SignalResult.NOT_FOUND: 404, SignalResult.FINISHED: 202}.get(told, 200)
    return Answer(status, {"outcome": told.value})


def _secrets(secret: str | Sequence[str]) -> list[bytes]:
    given = [secret] if isinstance(secret, str) else [*secret]
    if not given or not all(given):
        raise InvalidArgument("give the secret by which the sender signs")
    return [each.encode() for each in given]


def _is_one_of(given: str, wanted: Sequence[str]) -> bool:
    """In constant time: how much of it is right cannot be learned."""
    found = False
    for each in wanted:
        found |= hmac.compare_digest(given.encode("utf-8", "surrogateescape"), each.encode())
    return found


def _check_time(at: str, tolerance: float, now: float | None) -> None:
    if not at.isascii() or not at.isdecimal() or len(at) > 15:
        raise BadDelivery(f"its time is {at!r}, which is none")
    away = abs((time.time() if now is None else now) - int(at))
    if away > tolerance:
        raise BadDelivery(f"its time is {away:.0f} s away, and {tolerance:g} s are allowed")
