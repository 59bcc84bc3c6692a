"""Messages to people: a webhook, mail, or both."""

import smtplib
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from typing import Protocol
from urllib.parse import unquote, urlsplit

import httpx

from stocks_assets.errors import StocksError

_SECONDS = 10
# One that answers slowly keeps neither the other way nor who asks waiting for long.
_SECONDS_A_WAY = 15
# Answers that speak of what was sent, and not of whether anything can be.
_OF_THE_TEXT = (400, 413, 422)


class NotSentError(StocksError):
    """A message did not reach whoever takes it; the text says who and why, and no secret.

    `is_of_text` tells that it was this text that was refused, and another one may be taken.
    """

    def __init__(self, text: str, *, is_of_text: bool = False) -> None:
        super().__init__(text)
        self.is_of_text = is_of_text


@dataclass(frozen=True, slots=True)
class Message:
    """What to tell somebody, and the ways by which it has still to go out."""

    subject: str
    text: str
    by: frozenset[str]


class Sender(Protocol):
    """Sends messages by one way or another."""

    @property
    def ways(self) -> Collection[str]:
        """Return the names of the ways there are."""

    def send(self, way: str, subject: str, text: str) -> None:
        """Send by this way.

        Raises:
            NotSentError: it was not taken.
        """


@dataclass(frozen=True, slots=True)
class Delivery:
    """How many messages went out by some way, which ones have still to, and what went wrong."""

    sent: int
    unsent: Sequence[Message]
    trouble: Sequence[str]


def deliver(messages: Sequence[Message], sender: Sender, *, at_most: int) -> Delivery:
    """Send each message, the oldest first, by the ways that it has still to go.

    A way that fails is left alone until the next time, the others are not. Of what is unsent the
    newest `at_most` are kept.
    """
    left = [set(message.by.intersection(sender.ways)) for message in messages]
    lost = [
        f"not sent, as there is no {' and no '.join(sorted(message.by))} any more: "
        f"{message.subject}"
        for message, ways in zip(messages, left, strict=True)
        if not ways
    ]
    sent: set[int] = set()
    trouble = []
    for way in sorted(sender.ways):
        began = time.monotonic()
        for number, message in enumerate(messages):
            if way not in left[number]:
                continue
            if time.monotonic() - began > _SECONDS_A_WAY:
                trouble.append(f"the {way} is slow")
                break
            try:
                sender.send(way, message.subject, message.text)
            except NotSentError as error:
                trouble.append(str(error))
                if error.is_of_text:
                    continue
                break
            left[number].remove(way)
            sent.add(number)
    unsent = [
        replace(message, by=frozenset(ways))
        for message, ways in zip(messages, left, strict=True)
        if ways
    ]
    lost += [
        f"given up, as {at_most} newer messages wait: {message.subject} "
        f"(by {' and '.join(sorted(message.by))})"
        for message in unsent[:-at_most]
    ]
    return Delivery(len(sent), unsent[-at_most:], [*trouble, *lost])


@dataclass(frozen=True)
class Messenger:
    """Sends to a webhook, which takes JSON with `text` as chats do, and by mail.

    Both URLs may hold secrets: `smtp://user:password@host:port`, or `smtps://` for TLS from the
    start. With smtp, TLS is used where the server offers it, and always before a password.
    """

    webhook_url: str | None = None
    smtp_url: str | None = None
    mail_to: str | None = None

    def __repr__(self) -> str:
        return f"Messenger({' and '.join(self._ways()) or 'nowhere'})"

    @property
    def ways(self) -> Collection[str]:
        """Return the names of the ways that are set."""
        return self._ways().keys()

    def _ways(self) -> Mapping[str, Callable[[str, str], None]]:
        has_mail = self.smtp_url is not None and self.mail_to is not None
        return {
            **({"webhook": self._post} if self.webhook_url is not None else {}),
            **({"mail": self._mail} if has_mail else {}),
        }

    def send(self, way: str, subject: str, text: str) -> None:
        """Send by this way.

        Raises:
            NotSentError: it was not taken.
        """
        try:
            self._ways()[way](subject, text)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise NotSentError(
                f"the {way} answered {status}: {subject}", is_of_text=status in _OF_THE_TEXT
            ) from None
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            smtplib.SMTPException,
            OSError,
            ValueError,  # such as a password that cannot be encoded
        ) as error:
            # Their texts may have the URL.
            raise NotSentError(
                f"no {way} was sent ({type(error).__name__}): {subject}",
                is_of_text=isinstance(error, smtplib.SMTPDataError),
            ) from None

    def _post(self, subject: str, text: str) -> None:
        assert self.webhook_url is not None
        body = {"text": f"{subject}\n{text}"}
        httpx.post(self.webhook_url, json=body, timeout=_SECONDS).raise_for_status()

    def _mail(self, subject: str, text: str) -> None:
        assert self.smtp_url is not None
        assert self.mail_to is not None
        server = urlsplit(self.smtp_url)
        user, password = unquote(server.username or ""), unquote(server.password or "")
        message = EmailMessage()
        message["Subject"] = subject
        message["To"] = self.mail_to
        message["From"] = user if "@" in user else self.mail_to.split(",")[0].strip()
        # Without these two, many refuse a mail.
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=parseaddr(message["From"])[1].rpartition("@")[2])
        message.set_content(text)
        host, is_tls = server.hostname or "localhost", server.scheme == "smtps"
        secure = ssl.create_default_context()
        with (
            smtplib.SMTP_SSL(host, server.port or 465, timeout=_SECONDS, context=secure)
            if is_tls
            else smtplib.SMTP(host, server.port or 25, timeout=_SECONDS)
        ) as smtp:
            smtp.ehlo()
            if not is_tls and (password or smtp.has_extn("starttls")):
                smtp.starttls(context=secure)
            if password:
                smtp.login(user, password)
            smtp.send_message(message)
