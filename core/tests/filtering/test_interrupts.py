"""An interruption that comes at a bad moment takes effect afterwards."""

import os
import signal
import threading

import pytest
from planish.filtering.interrupts import deferred_interrupts


def interrupt_and_count(done):
    with deferred_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        for n in range(1000):
            done.append(n)


def test_an_interruption_waits_for_the_end():
    done = []
    with pytest.raises(KeyboardInterrupt):
        interrupt_and_count(done)
    assert len(done) == 1000


def test_handlers_are_put_back():
    def stop(number, frame):
        raise InterruptedError("asked to stop")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(InterruptedError, match="asked to stop"), deferred_interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_are_left_alone():
    seen = []

    def work():
        with deferred_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
