"""Weights that others have trained, from the hubs of timm and torch, or from the cache of an earlier download."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from torch import hub, nn

from genet.errors import GenetError, first_line

WAIT_S = 3.0  # timeout for a hub's first answer; its own client tries six times, for a minute


def pretrained_model(name: str, **arguments: Any) -> nn.Module:
    """Return a timm model with its trained weights, in eval mode; GenetError if they are not available."""
    import timm

    what = f"timm:{name}"
    try:
        with fetching(what):
            return cast("nn.Module", timm.create_model(name, pretrained=True, **arguments)).eval()
    except GenetError:
        raise
    except Exception as fault:  # any error of timm, such as for a model without weights
        raise GenetError(
            f"{what}: got no trained weights ({first_line(fault)}), expected some; name a model that has them"
        ) from None


@contextmanager
def fetching(what: str) -> Iterator[None]:
    """Make downloads in this context come from the cache as soon as their hub does not answer.

    GenetError if the work fails after that. A hub is tried when it is first needed.
    """
    from huggingface_hub import constants

    hubs = _Hubs()
    offline, opening = constants.HF_HUB_OFFLINE, hub.urlopen  # type: ignore[attr-defined]

    def opened(request: Request | str, *rest: Any, **named: Any) -> Any:
        if not hubs.answer(request if isinstance(request, str) else request.full_url):
            raise URLError("it does not answer")
        return opening(request, *rest, **named)

    constants.HF_HUB_OFFLINE = cast("bool", offline or _Silent(hubs, constants.ENDPOINT))
    hub.urlopen = opened  # type: ignore[attr-defined, assignment]
    try:
        yield
    except Exception:  # any error of a library or a user's function that lacks a file
        if not hubs.silent:
            raise
        raise GenetError(
            f"{what}: got no answer from {' and '.join(hubs.silent)} and no copy in the cache, expected one of them; connect to "
            "a network, or copy the cache (HF_HOME, TORCH_HOME) of a machine that has it"
        ) from None
    finally:
        constants.HF_HUB_OFFLINE, hub.urlopen = offline, opening  # type: ignore[attr-defined]


class _Hubs:
    """The hubs and whether they answer; each is asked once."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    @property
    def silent(self) -> list[str]:
        """Hubs that did not answer."""
        return [urlsplit(address).netloc for address, answers in self._known.items() if not answers]

    def answer(self, url: str) -> bool:
        """Return whether the hub of this URL answers."""
        parts = urlsplit(url)
        address = f"{parts.scheme}://{parts.netloc}"
        if address not in self._known:
            self._known[address] = _answers(address)
        return self._known[address]


class _Silent:
    """A switch that is true if a hub does not answer; the client reads it as its own offline switch before every request."""

    def __init__(self, hubs: _Hubs, url: str) -> None:
        self._hubs, self._url = hubs, url

    def __bool__(self) -> bool:
        return not self._hubs.answer(self._url)


def _answers(address: str) -> bool:
    """Return whether a server answers within WAIT_S, if necessary through the proxy that the environment names."""
    found: list[bool] = []

    def ask() -> None:
        try:
            urlopen(Request(address, method="HEAD"), timeout=WAIT_S).close()
            found.append(True)
        except HTTPError:
            found.append(True)
        except URLError as fault:  # the client verifies its certificate
            found.append(isinstance(fault.reason, ssl.SSLError))
        except (OSError, HTTPException):
            found.append(False)

    asking = threading.Thread(target=ask, daemon=True)  # resolving a name has no time limit of its own
    asking.start()
    asking.join(WAIT_S)
    return bool(found and found[0])
