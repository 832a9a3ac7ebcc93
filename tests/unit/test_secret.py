"""A credential cannot be printed by accident."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback

import pytest

from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import SidecarConfig

VALUE = "tok-3f9a-very-secret"


def test_no_ordinary_way_of_printing_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(VALUE)
    config = SidecarConfig(identity="a-bcdef", routes=(), audit_path="/x", secrets={"T": secret})
    logging.getLogger("t").warning("%s %r", secret, config)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!s:>40}",
        f"{secret:>40}",
        repr([secret]),
        repr(config),
        caplog.text,
    ]
    assert not [text for text in shown if VALUE in text]


def test_it_cannot_be_pickled_or_found_in_a_traceback() -> None:
    secret = Secret(VALUE)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    try:
        raise ValueError(secret)
    except ValueError:
        assert VALUE not in traceback.format_exc()


def test_the_pipe_form_carries_it_to_the_sidecar_only() -> None:
    config = SidecarConfig(identity="a-bcdef", routes=(), audit_path="/x", secrets={"T": Secret(VALUE)})
    assert SidecarConfig.from_wire(config.to_wire()).secrets["T"].reveal() == VALUE
