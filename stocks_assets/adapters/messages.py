"""Messages to people: a webhook, mail, or both."""

import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import httpx

from stocks_assets.errors import StocksError

_SECONDS = 15


class NotSentError(StocksError):
    """A message did not reach whoever takes it; the text says who and why, and no secret.

    `sent` are the ways by which it did go out.
    """

    def __init__(self, text: str, sent: frozenset[str]) -> None:
        super().__init__(text)
        self.sent = sent


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
        ways = [way for way, url in (("webhook", self.webhook_url), ("mail", self.smtp_url)) if url]
        return f"Messenger({' and '.join(ways) or 'nowhere'})"

    def send(self, subject: str, text: str, *, except_by: frozenset[str] = frozenset()) -> None:
        """Send by every way there is, even where one of them fails, `except_by` some.

        Raises:
            NotSentError: one of them did not take it.
        """
        failed, sent = [], set(except_by)
        ways: list[tuple[str, bool, Callable[[str, str], None]]] = [
            ("webhook", self.webhook_url is not None, self._post),
            ("mail", self.smtp_url is not None and self.mail_to is not None, self._mail),
        ]
        for name, is_set, way in ways:
            if not is_set or name in except_by:
                continue
            try:
                way(subject, text)
                sent.add(name)
            except httpx.HTTPStatusError as error:
                failed.append(f"the {name} answered {error.response.status_code}")
            except (httpx.HTTPError, smtplib.SMTPException, OSError) as error:
                # Their texts may have the URL.
                failed.append(f"no {name} was sent ({type(error).__name__})")
        if failed:
            raise NotSentError(f"{'; '.join(failed)}: {subject}", frozenset(sent))

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
