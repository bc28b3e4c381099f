"""Sending to a receiver: a webhook, Slack, a mail server; each within a time, and never twice in one attempt.

Belongs here: HTTP and SMTP. Does not belong here: what is sent (`messages`), sending it again (`outbox`).

What a library says of a failure may hold an address that is a secret, so its kind alone is passed on.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping

from dicom_assets.alert_settings import PORTS, AlertSettings, is_protected
from dicom_assets.monitoring.messages import as_json, for_slack, mail
from dicom_assets.monitoring.occasions import Told
from dicom_assets.sections import SettingsError


class ReceiverAway(Exception):
    """A receiver did not take what was sent; says which, and in kind why."""


def send(told: Told, alert: AlertSettings, environment: Mapping[str, str]) -> None:
    """Sends one thing to one receiver. Raises ReceiverAway, SettingsError for a variable or a file that is missing."""
    if alert.kind == "mail":
        _mail(told, alert, environment)
    else:
        _post(told, alert, environment)


def _post(told: Told, alert: AlertSettings, environment: Mapping[str, str]) -> None:
    import httpx  # with its certificates it takes longer to import than most ticks have to send

    url = alert.url or _secret(alert, alert.url_variable, environment)
    headers = {}
    if alert.token_variable is not None:
        if not is_protected(url):
            raise SettingsError(f"Alert '{alert.name}': a token is sent over https only.")
        headers["Authorization"] = f"Bearer {_secret(alert, alert.token_variable, environment)}"
    body = for_slack(told, alert) if alert.kind == "slack" else as_json(told, alert)
    verify = _context(alert) if url.startswith("https://") else True
    try:
        with httpx.Client(timeout=alert.timeout_seconds, verify=verify) as client:
            answer = client.post(url, json=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise ReceiverAway(f"Alert '{alert.name}': the receiver cannot be reached ({type(error).__name__}).") from None
    if not answer.is_success:
        raise ReceiverAway(f"Alert '{alert.name}': the receiver answered {answer.status_code}.")


def _mail(told: Told, alert: AlertSettings, environment: Mapping[str, str]) -> None:
    host, port = alert.host or "", alert.port or PORTS[alert.security]
    login = None
    if alert.user_variable is not None:
        variables = (alert.user_variable, alert.password_variable)
        login = tuple(_secret(alert, variable, environment) for variable in variables)
    context = None if alert.security == "none" else _context(alert)
    try:
        with (
            smtplib.SMTP_SSL(host, port, timeout=alert.timeout_seconds, context=context)
            if alert.security == "tls"
            else smtplib.SMTP(host, port, timeout=alert.timeout_seconds)
        ) as server:
            if alert.security == "starttls":
                server.starttls(context=context)
            if login is not None:
                server.login(*login)
            server.send_message(mail(told, alert))
    except (smtplib.SMTPException, OSError) as error:
        code = getattr(error, "smtp_code", None)
        why = f"{type(error).__name__}{f' {code}' if code else ''}"
        raise ReceiverAway(f"Alert '{alert.name}': the mail server did not take it ({why}).") from None


def _context(alert: AlertSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if alert.ca_file is not None:
        try:
            context.load_verify_locations(alert.ca_file)
        except OSError:
            raise SettingsError(f"Alert '{alert.name}': ca_file {alert.ca_file} holds no certificates.") from None
    return context


def _secret(alert: AlertSettings, variable: str | None, environment: Mapping[str, str]) -> str:
    value = environment.get(variable or "", "").strip()
    if not value:
        raise SettingsError(f"Alert '{alert.name}': the environment variable {variable} is not set.")
    return value
